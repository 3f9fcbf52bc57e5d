"""Our dense CRF: how fast, how equal to pydensecrf, how much memory, how long Python's lock is held.

    make oracle && python -m benchmarks.crf speed FOLDER_OF_PHOTOS [--images 6] [--labels 27] [--size 320]
    python -m benchmarks.crf camvid [FOLDER] [--bundle models/pretrained/street]

`speed` runs ours and pydensecrf in turn on each photo with three kinds of probabilities: smooth, peaked, and STEGO's
flat softmax(2 · cosine). pydensecrf has one thread; without it, ours is timed alone. `camvid` compares the ways there
are to refine a label map, against ground truth (see crf_quality.py).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import crf_cost, crf_quality
from models.crf import dense, reference
from models.crf.cpu.warmup import warm
from models.crf.params import Refined
from models.io.decode import load
from models.preprocess import resize
from models.types import Array

SHARPNESS = {"smooth": 1.0, "peaked": 6.0, "flat": 2.0}


class Took(NamedTuple):
    """Seconds of the processor and of the clock; labels uint8 [H, W] and marginals float32 [K, H, W]."""

    cpu_s: float
    wall_s: float
    labels: Array
    marginals: Array


def probabilities(kind: str, k: int, size: int, seed: int) -> Array:
    """float32 [K, size, size]: a softmax over smooth random maps; "flat" ones are cosines, −1..1."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(k, 20, 20))
    if kind == "flat":
        coarse /= np.abs(coarse).max()
    coarse = 255 * (coarse - coarse.min()) / np.ptp(coarse)
    maps = np.stack([resize(np.rint(c).astype(np.uint8), (size, size)) for c in coarse]).astype(np.float32)
    scaled = SHARPNESS[kind] * (maps / 127.5 - 1)
    grown = np.exp(scaled - scaled.max(axis=0))
    return np.asarray(grown / grown.sum(axis=0), np.float32)


def ours(threads: int) -> Callable[[Array, Array], Refined]:
    """models.crf.dense.refine with so many threads."""
    return partial(dense.refine, threads=threads, return_marginals=True)


def timed(refine: Callable[[Array, Array], Refined], given: Array, photo: Array) -> Took:
    """One call, measured."""
    wall, cpu = time.perf_counter(), time.process_time()
    labels, marginals = refine(given, photo)
    return Took(time.process_time() - cpu, time.perf_counter() - wall, labels, marginals)


def ratio(name: str, theirs: list[float], mine: list[float]) -> None:
    """Prints the medians of both, and of their ratio pair by pair."""
    pairs = [a / b for a, b in zip(theirs, mine, strict=True)]
    print(
        f"{name}: ours {statistics.median(mine) * 1000:.0f} ms, pydensecrf {statistics.median(theirs) * 1000:.0f} ms;"
        f" ratio of the medians {statistics.median(theirs) / statistics.median(mine):.2f}, of the pairs"
        f" {statistics.median(pairs):.2f} [{min(pairs):.2f}–{max(pairs):.2f}]"
    )


def speed(photos: Path, images: int, labels: int, size: int) -> None:
    """Prints the table that the CRF is judged by, as far as a CPU tells it."""
    print(f"{size}×{size}, {labels} labels, 10 iterations; this processor's widest vectors: {crf_cost.vectors()}")
    warm()
    compare, paths = reference.missing() is None, sorted(photos.iterdir())
    one, two, other = list[Took](), list[Took](), list[Took]()
    agreement, difference = [], []
    for i, path in enumerate(paths[:: max(1, len(paths) // images)][:images]):
        photo = resize(load(path).image, (size, size))
        for kind in SHARPNESS:
            given = probabilities(kind, labels, size, i)
            if compare:
                other.append(timed(reference.refine, given, photo))
            one.append(timed(ours(1), given, photo))
            two.append(timed(ours(2), given, photo))
            assert np.array_equal(one[-1].labels, two[-1].labels), "threads must not change the answer"
            if compare:
                agreement.append(float((one[-1].labels == other[-1].labels).mean()))
                difference.append(float(np.abs(one[-1].marginals - other[-1].marginals).mean()))
            # What was compared need not be kept.
            one[-1], two[-1] = (took._replace(labels=given[:0], marginals=given[:0]) for took in (one[-1], two[-1]))
            if compare:
                other[-1] = other[-1]._replace(labels=given[:0], marginals=given[:0])
    if compare:
        ratio("one core, seconds of the processor", [t.cpu_s for t in other], [t.cpu_s for t in one])
        ratio("one thread, by the clock", [t.wall_s for t in other], [t.wall_s for t in one])
        ratio("two threads, by the clock", [t.wall_s for t in other], [t.wall_s for t in two])
        print(
            f"labels equal: min {min(agreement):.6f}, mean {statistics.mean(agreement):.6f};"
            f" mean |ΔQ| {statistics.mean(difference):.1e}, largest {max(difference):.1e}; {len(agreement)} cases"
        )
    else:
        for name, took in (("one thread", one), ("two threads", two)):
            print(f"{name}: {statistics.median(t.wall_s for t in took) * 1000:.0f} ms; `make oracle` to compare")
    for kind in ("photo", "noise"):
        print(f"memory of one image in flight, {kind}: {crf_cost.memory(kind, paths[0], labels, size):.0f} MiB")
    gap, alone = crf_cost.stall(labels, size), crf_cost.stall(labels, size, refining=False)
    print(f"event loop, longest gap while 8 CRFs run in 2 threads: {gap:.1f} ms; while none runs: {alone:.1f} ms")


def main() -> None:
    """The commands of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("speed")
    cost.add_argument("photos", type=Path)
    cost.add_argument("--images", type=int, default=6)
    cost.add_argument("--labels", type=int, default=27)
    cost.add_argument("--size", type=int, default=320)
    quality = commands.add_parser("camvid")
    quality.add_argument("data", nargs="?", type=Path, default=Path("../shared/data/camvid"))
    quality.add_argument("--bundle", type=Path)
    quality.add_argument("--split", default="val")
    quality.add_argument("--every", type=int, default=1, help="only every so many frames")
    asked = parser.parse_args()
    if asked.command == "speed":
        speed(asked.photos, asked.images, asked.labels, asked.size)
    else:
        crf_quality.table(asked.data, asked.bundle, asked.split, asked.every)


if __name__ == "__main__":
    main()
