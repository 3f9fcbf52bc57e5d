"""The whole server with crf=true: on our CRF, and the same server on pydensecrf in a pool of processes.

    make oracle                                                                              once: pydensecrf
    python -m benchmarks.crf_server PHOTOS [--bundle BUNDLE] [--seconds 15] [--concurrency 4,8] [--rounds 3]

Two servers on loopback that differ in TESSERA_CRF alone; nothing is kept for images asked again. Different photos, as
the files are, are sent by so many clients that each wait for their answer; the servers take turns, first one first,
then the other. A run is void, and the exit code 1, unless every answer was a 200, refined by the one that was asked,
with a pass of the network of its own. Memory is that of the server and its processes, shared pages counted in each.
Medians go to benchmarks/results/crf-server-BUNDLE.json. `make peers` makes a bundle of 320×320 pixels and 27 clusters
with a ViT-S/16, and one with next to no network: runs/bench/bundles/vit and tiny.

Knows nothing of how a server answers.
"""

import argparse
import asyncio
import io
import json
import statistics
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import load, machine
from benchmarks.own_server import OwnServer, ServerError, serving, void
from models.bundle import Bundle
from models.crf import reference
from models.crf.cpu.warmup import warm
from models.errors import TesseraError
from service.settings import embedded

PORT = 8203
CRFS = ("dense", "pydensecrf")
QUERY = "format=png&crf=true"
_WARM_S = 3.0
_COMPARED = 6  # photos whose label maps are held against each other


@dataclass(frozen=True)
class Round:
    """One load on one server: seconds of the processor are those of the server, all processes together."""

    images_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    rss_mb: float


async def measured(server: OwnServer, log: Path, requests: list[bytes], clients: int, secs: float) -> Round:
    """Raises ServerError where the run is void."""
    client = load.Client(server.port)
    try:
        passes, used = server.counters()["tessera_images_total"], machine.cpu_s(server.pid)
        sampling = asyncio.create_task(load.memory(server.pid, every_s=0.5))
        seen = await load.closed(client, requests, clients, secs)
        sampling.cancel()
        used, samples, found = machine.cpu_s(server.pid) - used, await sampling, server.counters()
    finally:
        await client.close()
    done = len(seen.accepted_s)
    if set(seen.statuses) != {"200"} or seen.warned:
        raise ServerError(f"void: statuses {dict(seen.statuses)}, {seen.warned} answers with a warning")
    if bad := void(found, round(passes) + done):
        raise ServerError(f"void: {bad}")
    if "ours refines this image" in log.read_text():
        raise ServerError("void: pydensecrf's processes died, and ours refined for them")
    p50, p99 = (float(q) * 1000 for q in np.percentile(seen.accepted_s, (50, 99)))
    return Round(done / seen.wall_s, p50, p99, used / done * 1000, max(samples))


def label_map(server: OwnServer, query: str, photo: bytes) -> NDArray[Any]:
    """uint8 [H, W]. Raises ServerError where it comes with a warning."""
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/segment?{query}", photo)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        if "x-warning" in answer.headers:
            raise ServerError(f"TESSERA_CRF's answer to {query}: {answer.headers['x-warning']}")
        return np.asarray(Image.open(io.BytesIO(answer.read())))


def agreement(servers: Sequence[OwnServer], photos: Sequence[bytes]) -> dict[str, float]:
    """Shares of pixels: with one label from both, in the mean and at least; and with another one than without a CRF."""
    same, changed = [], []
    for photo in photos:
        ours, theirs = (label_map(server, QUERY, photo) for server in servers)
        same.append(float((ours == theirs).mean()))
        changed.append(float((ours != label_map(servers[0], "format=png", photo)).mean()))
    return {"mean": statistics.mean(same), "min": min(same), "changed_by_crf": statistics.mean(changed)}


def summary(rounds: dict[str, list[Round]]) -> dict[str, Any]:
    """Medians of every figure by server, and how many times as many images ours answers, round by round."""
    medians = {
        name: {figure: round(statistics.median(asdict(r)[figure] for r in each), 2) for figure in asdict(each[0])}
        for name, each in rounds.items()
    }
    ours, theirs = ([r.images_per_s for r in rounds[name]] for name in CRFS)
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        **medians,
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
        "ratio_range": [round(min(pairs), 3), round(max(pairs), 3)],
        "rounds": len(pairs),
    }


def row(clients: int, found: dict[str, Any]) -> str:
    """One line of the table."""
    ours, theirs = (found[name] for name in CRFS)
    low, high = found["ratio_range"]
    each = [
        f"{ours['images_per_s']:.2f} / {theirs['images_per_s']:.2f}",
        f"**{found['ratio']:.2f}** [{low:.2f}–{high:.2f}]",
        f"{ours['p50_ms']:.0f} / {theirs['p50_ms']:.0f}",
        f"{ours['p99_ms']:.0f} / {theirs['p99_ms']:.0f}",
        f"{ours['cpu_ms']:.0f} / {theirs['cpu_ms']:.0f}",
        f"{ours['rss_mb']:.0f} / {theirs['rss_mb']:.0f}",
    ]
    return f"| {clients} | {' | '.join(each)} |"


def compare(servers: Sequence[OwnServer], logs: Sequence[Path], photos: list[bytes], given: Any) -> dict[str, Any]:
    """All rounds; prints a line for each number of clients. Raises ServerError where one is void."""
    requests = [load.request(QUERY, photo) for photo in photos]
    both = list(zip(CRFS, servers, logs, strict=True))
    for _, server, log in both:
        asyncio.run(measured(server, log, requests, max(given.concurrency), _WARM_S))
    found: dict[str, Any] = {"labels": agreement(servers, photos[:_COMPARED])}
    print(
        "labels equal: mean {mean:.6f}, min {min:.6f}; changed by the CRF: {changed_by_crf:.3f}\n".format(
            **found["labels"]
        )
    )
    print("| clients | images/s | ratio | p50 ms | p99 ms | CPU ms an image | MB |")
    print("|---|---|---|---|---|---|---|")
    for clients in given.concurrency:
        rounds: dict[str, list[Round]] = {name: [] for name in CRFS}
        for turn in range(given.rounds):
            for name, server, log in both if turn % 2 == 0 else both[::-1]:
                rounds[name].append(asyncio.run(measured(server, log, requests, clients, given.seconds)))
        found[f"clients_{clients}"] = summary(rounds)
        print(row(clients, found[f"clients_{clients}"]), flush=True)
    return found


def several(folder: Path, count: int) -> list[bytes]:
    """So many different files, evenly from the folder's JPEGs and PNGs. Raises ServerError where there are fewer."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = list(dict.fromkeys(path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]))
    if len(files) < count:
        raise ServerError(f"{len(files)} different photos in {folder}; {count} are needed")
    return files


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--bundle", type=Path, default=embedded()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of one load on one server")
    parser.add_argument("--concurrency", type=lambda text: [int(n) for n in text.split(",")], default=[4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=32, help="different photos")
    parser.add_argument("--engine", default="onnxruntime", help="TESSERA_ENGINE of both")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"), help="for the servers' logs")
    parser.add_argument("--no-keep", action="store_true", help="write nothing to benchmarks/results")
    given = parser.parse_args()
    try:
        _all(given)
    except TesseraError as error:
        sys.exit(str(error))


def _all(given: argparse.Namespace) -> None:
    if reason := reference.missing():
        raise ServerError(reason)
    bundle, photos = Bundle.load(given.bundle), several(given.photos, given.images)
    clusters = len(bundle.manifest.clusters)
    warm()  # on disk, for the server as well
    given.work.mkdir(parents=True, exist_ok=True)
    env = {
        "TESSERA_CACHE_BYTES": "0",
        "TESSERA_ACCESS_LOG": "false",
        "TESSERA_ENGINE": given.engine,
        "TESSERA_CRF_TIMEOUT_S": "30",  # other work on the machine makes no answer unrefined
        "TESSERA_STATE": str((given.work / "state").resolve()),
    }
    tessera = Path(sys.executable).with_name("tessera")  # where pydensecrf is
    logs = [given.work / f"crf-{name}.server.log" for name in CRFS]
    with ExitStack() as open_servers:
        servers = [
            open_servers.enter_context(
                serving(given.bundle.resolve(), log, port=PORT + i, env={**env, "TESSERA_CRF": name}, tessera=tessera)
            )
            for i, (name, log) in enumerate(zip(CRFS, logs, strict=True))
        ]
        print(f"{bundle.ref}, {clusters} clusters, {len(photos)} photos, {given.engine}; ours / pydensecrf", flush=True)
        found = compare(servers, logs, photos, given)
    if not given.no_keep:
        load.RESULTS.mkdir(exist_ok=True)
        what = {
            "what": "python -m benchmarks.crf_server",
            "bundle": bundle.ref,
            "clusters": clusters,
            "engine": given.engine,
            "photos": len(photos),
            "seconds": given.seconds,
            "machine": machine.describe(),
            "versions": machine.versions(
                Path(sys.executable), ["tessera-segmentation", "pydensecrf", "onnxruntime", "numba"]
            ),
        }
        file = load.RESULTS / f"crf-server-{bundle.manifest.name}.json"
        file.write_text(json.dumps({**what, **found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
