"""`tessera serve` as one process and as several on the same cores, side by side: images a second, and memory.

    make peers && make .venv-serve/.ready-cpu              once: the networks in runs/bench, our environment
    python -m benchmarks.workers [BUNDLE …] [--workers 2] [--clients 32] [--starts 3] [--rounds 4]

Without a BUNDLE: the near-zero network and the ViT-S/16 of `make peers`, and the embedded default. Both run on loopback
with nothing kept for images asked again; different drawn photos are sent by so many clients on connections that stay.
They take turns in short rounds and are started anew several times, as in `benchmarks.commits`; a ratio is the median
over all rounds of the several processes' rate over the one's. A round is void unless every answer was a 200 with a pass
of the network of its own. Memory is that of all processes of a server after its rounds, the pages that they share
counted once (Pss of /proc).

Knows nothing of how a server answers.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import load, machine
from benchmarks.commits import Pair, compare, jpeg
from benchmarks.own_server import serving
from service.settings import embedded

PORT = 8212
_BUNDLES = Path(__file__).resolve().parents[1] / "runs" / "bench" / "bundles"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [_BUNDLES / "tiny", _BUNDLES / "vit", *embedded()[:1]]
    parser.add_argument("bundles", type=Path, nargs="*", default=default)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4, help="after each start")
    parser.add_argument("--secs", type=float, default=2.0, help="of each round and server")
    given = parser.parse_args()
    requests = [load.request("format=png", jpeg(seed)) for seed in range(48)]
    print(machine.describe(), flush=True)
    for bundle in given.bundles:
        rounds: list[Pair] = []
        held: list[tuple[float, float]] = []
        for start in range(given.starts):
            several = ["--workers", str(given.workers)]
            order = [several, []] if start % 2 else [[], several]
            with ExitStack() as open_:
                servers = {}
                for port, more in enumerate(order, PORT):
                    folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
                    env = {"TESSERA_CACHE_BYTES": "0", "TESSERA_ACCESS_LOG": "false", "TESSERA_STATE": str(folder)}
                    workers = given.workers if more else 1
                    running = serving(bundle, folder / "log", port=port, env=env, more=more, workers=workers)
                    servers[bool(more)] = open_.enter_context(running)
                many, one = servers[True], servers[False]
                rounds += asyncio.run(compare(many, one, requests, given.clients, given.rounds, given.secs))
                held.append((_memory_mb(many.pid), _memory_mb(one.pid)))
        ratios = [pair.mine.per_s / pair.other.per_s for pair in rounds]
        sides = list(zip(*rounds, strict=True))
        rates = [statistics.median(each.per_s for each in side) for side in sides]
        costs = [statistics.median(each.cpu_ms for each in side) for side in sides]
        memory = [statistics.median(side) for side in zip(*held, strict=True)]
        print(
            f"{bundle.name}: {given.workers} workers / 1: {rates[0]:.1f} / {rates[1]:.1f} images/s, ratio"
            f" {statistics.median(ratios):.3f} [{min(ratios):.3f} to {max(ratios):.3f}]; processor"
            f" {costs[0]:.2f} / {costs[1]:.2f} ms an image; memory {memory[0]:.0f} / {memory[1]:.0f} MB",
            flush=True,
        )


def _memory_mb(pid: int) -> float:
    total = 0
    for each in (pid, *machine.children(pid)):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


if __name__ == "__main__":
    sys.exit(main())
