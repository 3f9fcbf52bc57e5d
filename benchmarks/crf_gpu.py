"""Our dense CRF on a GPU: milliseconds an image in batches of 1 to 16, agreement with the CPU, memory.

    python -m benchmarks.crf_gpu FOLDER_OF_PHOTOS [--labels 27] [--size 320] [--kernels]

Probabilities and photos lie on the device, labels stay there; the clock stops when they are done. Where there is no
GPU it says so and measures nothing. --kernels adds where the time goes, launch by launch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.crf import dense
from models.crf.cuda import Refiner, available, open_device
from models.crf.cuda.device import Argument, Device, Program
from models.io.decode import decode
from models.preprocess import resize
from models.types import Array

BATCHES = (1, 4, 8, 16)
ROUNDS = 20


class Case(NamedTuple):
    """A photo uint8 [H, W, 3] and probabilities float32 [K, H, W] for it."""

    probabilities: Array
    photo: Array


def cases(photos: list[Path], k: int, size: int) -> list[Case]:
    """Flat, smooth and peaked probabilities by turns: a softmax over smooth random maps."""
    made = []
    for number, path in enumerate(photos):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (k, 20, 20), np.uint8)
        maps = np.stack([resize(map_, (size, size)) for map_ in coarse]).astype(np.float32)
        grown = np.exp((1.0, 2.0, 6.0)[number % 3] * (maps / 127.5 - 1))
        photo = resize(decode(path.read_bytes()).image, (size, size))
        made.append(Case(np.asarray(grown / grown.sum(axis=0), np.float32), photo))
    return made


def wait(device: Device) -> None:
    """Until all that was queued is done."""
    with device.active():
        nothing = device.empty((1,), np.uint8)
    device.download(nothing)


def milliseconds(device: Device, refiner: Refiner, batch: list[Case]) -> float:
    """The median of several rounds, for one image of the batch."""
    with device.active():
        given = [device.upload(case.probabilities) for case in batch]
        photos = [device.upload(case.photo) for case in batch]
    took = []
    for _ in range(ROUNDS + 3):
        wait(device)
        started = time.perf_counter()
        refiner.refine_batch(given, photos)
        wait(device)
        took.append((time.perf_counter() - started) * 1e3 / len(batch))
    return statistics.median(took[3:])


class Stopwatch:
    """A device whose every launch is waited for and timed; the waiting itself is part of what it measures."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.took: defaultdict[str, float] = defaultdict(float)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def program(self, blocks: int) -> Program:
        return TimedProgram(self, self._device.program(blocks))


class TimedProgram:
    """Kernels between two looks at the clock."""

    def __init__(self, watch: Stopwatch, program: Program) -> None:
        self._watch, self._program = watch, program

    def prepared(self, kernel: str, grid: tuple[int, int], threads: int, *args: Argument) -> Callable[[], object]:
        """As Program.prepared."""
        launch = self._program.prepared(kernel, grid, threads, *args)

        def timed() -> None:
            wait(self._watch)
            started = time.perf_counter()
            launch()
            wait(self._watch)
            self._watch.took[kernel] += time.perf_counter() - started

        return timed


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--labels", type=int, default=27)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--kernels", action="store_true")
    options = parser.parse_args()
    if reason := available():
        print(f"no GPU here: not measured ({reason})")
        return

    photos = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not photos:
        raise SystemExit(f"no JPEG or PNG in {options.photos}")
    batch = cases((photos * max(BATCHES))[: max(BATCHES)], options.labels, options.size)
    device = open_device()
    print(f"{options.size}², {options.labels} labels, 10 iterations; median of {ROUNDS} rounds\n")
    print("| batch | ms an image | device memory, MB | MB an image |\n|---|---|---|---|")
    for size in BATCHES:
        refiner = Refiner(device, budget=8 << 30)
        each = milliseconds(device, refiner, batch[:size])
        held = refiner.nbytes / 1e6
        print(f"| {size} | {each:.3f} | {held:.0f} | {held / size:.1f} |", flush=True)

    labels, marginals = Refiner(device, budget=8 << 30).refine_batch(
        [case.probabilities for case in batch], [case.photo for case in batch], return_marginals=True
    )
    agreement, apart = [], []
    for case, ours, q in zip(batch, labels, marginals, strict=True):
        expected, exact = dense.refine(*case, threads=4, return_marginals=True)
        agreement.append(float((device.download(ours) == expected).mean()))
        apart.append(float(np.abs(device.download(q) - exact).mean()))
    print(
        f"\nagainst the CPU, {len(batch)} photos: labels {min(agreement):.6f} at least,"
        f" {statistics.mean(agreement):.6f} in the mean; |ΔQ| {statistics.mean(apart):.1e} in the mean"
    )

    if options.kernels:
        watch = Stopwatch(device)
        refiner = Refiner(watch, budget=8 << 30)
        refiner.refine_batch([case.probabilities for case in batch[:8]], [case.photo for case in batch[:8]])
        watch.took.clear()
        refiner.refine_batch([case.probabilities for case in batch[:8]], [case.photo for case in batch[:8]])
        print("\n| kernel, batch of 8 | ms, with the wait for it |\n|---|---|")
        for kernel, seconds in sorted(watch.took.items(), key=lambda row: -row[1]):
            print(f"| {kernel} | {seconds * 1e3:.2f} |")


if __name__ == "__main__":
    main()
