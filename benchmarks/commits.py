"""This tree's server and that of another commit, side by side: images a second and processor time, as ratios.

    make peers && make .venv-serve/.ready-cpu                   once: the networks in runs/bench, our environment
    git worktree add /tmp/before COMMIT && make -C /tmp/before .venv-serve/.ready-cpu
    python -m benchmarks.commits /tmp/before/.venv-serve/bin/tessera [--starts 8] [--rounds 4] [--only tiny-32,crf-8]

Both servers run on loopback with nothing kept for images asked again; different drawn photos are sent by so many
clients that each wait for their answer. The servers take turns in short rounds, the one first and then the other, so
that what else a machine does meets both, and are started anew several times: two processes of one commit differ by up
to a twentieth, by where their memory happens to lie. A ratio is the median over all rounds of this tree's rate over the
other's. A round is void unless every answer was a 200 with a pass of the network of its own. Exit code 1 where a ratio
is below 0.98.

Knows nothing of how a server answers.
"""

import argparse
import asyncio
import io
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks import load, machine
from benchmarks.own_server import OwnServer, ServerError, serving, void
from training.data.synthetic import street

PORT = 8206
_BOUND = 0.98
_BUNDLES = Path(__file__).resolve().parents[1] / "runs" / "bench" / "bundles"
_LOADS = {"tiny-32": ("tiny", 32, ""), "vit-8": ("vit", 8, ""), "crf-8": ("vit", 8, "&crf=true")}


class Round(NamedTuple):
    """Images a second, and milliseconds of the processor for each."""

    per_s: float
    cpu_ms: float


class Pair(NamedTuple):
    """A round of this tree's server, and one of the other's beside it."""

    mine: Round
    other: Round


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other commit's `tessera`")
    parser.add_argument("--starts", type=int, default=8, help="of both servers")
    parser.add_argument("--rounds", type=int, default=4, help="after each start")
    parser.add_argument("--secs", type=float, default=2.0, help="of each round and server")
    parser.add_argument("--only", default=",".join(_LOADS))
    given = parser.parse_args()
    requests = [jpeg(seed) for seed in range(48)]
    held = True
    for name in given.only.split(","):
        bundle, clients, more = _LOADS[name]
        sent = [load.request(f"format=png{more}", photo) for photo in requests]
        rounds: list[Pair] = []
        for start in range(given.starts):
            order = [None, given.other] if start % 2 else [given.other, None]
            with ExitStack() as open_:
                servers = {}
                for port, tessera in enumerate(order, PORT):
                    folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
                    env = {"TESSERA_CACHE_BYTES": "0", "TESSERA_ACCESS_LOG": "false", "TESSERA_STATE": str(folder)}
                    running = serving(_BUNDLES / bundle, folder / "log", port=port, env=env, tessera=tessera)
                    servers[tessera is None] = open_.enter_context(running)
                rounds += asyncio.run(compare(servers[True], servers[False], sent, clients, given.rounds, given.secs))
        ratio = statistics.median(pair.mine.per_s / pair.other.per_s for pair in rounds)
        by_start = [
            statistics.median(pair.mine.per_s / pair.other.per_s for pair in rounds[i : i + given.rounds])
            for i in range(0, len(rounds), given.rounds)
        ]
        costs = [statistics.median(one.cpu_ms for one in side) for side in zip(*rounds, strict=True)]
        rates = [statistics.median(one.per_s for one in side) for side in zip(*rounds, strict=True)]
        print(
            f"{name}: {rates[0]:.1f} / {rates[1]:.1f} images/s, ratio {ratio:.3f} [by start {min(by_start):.3f} to"
            f" {max(by_start):.3f}]; processor {costs[0]:.2f} / {costs[1]:.2f} ms an image",
            flush=True,
        )
        held &= ratio >= _BOUND
    return 0 if held else 1


async def compare(
    mine: OwnServer, other: OwnServer, requests: list[bytes], clients: int, rounds: int, secs: float
) -> list[Pair]:
    """So many rounds, in turns, after one that warms both."""
    found = []
    for turn in range(rounds + 1):
        each = {server: await measured(server, requests, clients, secs) for server in _turn(mine, other, turn)}
        found.append(Pair(each[mine], each[other]))
    return found[1:]


def _turn(mine: OwnServer, other: OwnServer, turn: int) -> tuple[OwnServer, OwnServer]:
    return (mine, other) if turn % 2 else (other, mine)


async def measured(server: OwnServer, requests: list[bytes], clients: int, secs: float) -> Round:
    """Raises ServerError where the round is void."""
    client = load.Client(server.port)
    before, used = server.counters()["tessera_images_total"], machine.cpu_s(server.pid)
    seen = await load.closed(client, requests, clients, secs)
    used = machine.cpu_s(server.pid) - used
    await client.close()
    done = len(seen.accepted_s)
    if set(seen.statuses) != {"200"} or seen.warned:
        raise ServerError(f"void: statuses {dict(seen.statuses)}, {seen.warned} answers with a warning")
    if bad := void(server.counters(), round(before) + done):
        raise ServerError(f"void: {bad}")
    return Round(done / seen.wall_s, used / done * 1000)


def jpeg(seed: int) -> bytes:
    """A drawn photo."""
    buffer = io.BytesIO()
    Image.fromarray(street((320, 320), seed=seed)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
