"""Our dense CRF on a GPU: milliseconds an image in batches of 1 to 16, agreement with the CPU, memory.

    python -m benchmarks.crf_gpu FOLDER_OF_PHOTOS [--labels 27] [--size 320] [--kernels]

Scores on the network's grid lie on the device, photos go there, labels stay; the clock stops when they are done. Where
there is no GPU it says so and measures nothing. --kernels adds where the time goes, launch by launch.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.crf.cuda import Refiner, available, open_device
from models.crf.cuda.device import Argument, Device, Program
from models.io.decode import decode
from models.manifest import CodeSpec
from models.preprocess import Fit, resize
from models.refine import refine
from models.types import Array

SPEC = CodeSpec(dim=1, stride=8, assignment="dot", temperature=1.0)
BATCHES = (1, 4, 8, 16)
ROUNDS = 20


class Case(NamedTuple):
    """Scores float32 [K, h, w] on the grid of a photo of the network's size."""

    scores: Array
    fitted: Fit


def cases(photos: list[Path], k: int, size: int) -> list[Case]:
    """Flat, smooth and peaked probabilities by turns."""
    made = []
    for number, path in enumerate(photos):
        rng = np.random.default_rng(number)
        scores = (1.0, 2.0, 6.0)[number % 3] * rng.uniform(-1, 1, (k, size // SPEC.stride, size // SPEC.stride))
        photo = resize(decode(path.read_bytes()).image, (size, size))
        made.append(Case(scores.astype(np.float32), Fit(photo, (size, size))))
    return made


def given(batch: list[Case]) -> tuple[list[Array], None, list[Fit]]:
    """The first arguments of Refiner.refine."""
    return [case.scores for case in batch], None, [case.fitted for case in batch]


def wait(device: Device) -> None:
    """Until all that was queued is done."""
    with device.active():
        nothing = device.empty((1,), np.uint8)
    device.download(nothing)


def milliseconds(device: Device, refiner: Refiner, batch: list[Case]) -> float:
    """The median of several rounds, for one image of the batch."""
    with device.active():
        scores = [device.upload(case.scores) for case in batch]
    fitted, took = [case.fitted for case in batch], []
    for _ in range(ROUNDS + 3):
        wait(device)
        started = time.perf_counter()
        refiner.refine(scores, None, fitted, SPEC)
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

    labels = Refiner(device, budget=8 << 30).refine(*given(batch), SPEC)
    agreement = []
    for case, ours in zip(batch, labels, strict=True):
        expected = refine(case.scores, None, case.fitted, SPEC, threads=4)
        agreement.append(float((device.download(ours) == expected).mean()))
    print(
        f"\nagainst the CPU, {len(batch)} photos: labels {min(agreement):.6f} at least,"
        f" {statistics.mean(agreement):.6f} in the mean"
    )

    if options.kernels:
        watch = Stopwatch(device)
        refiner = Refiner(watch, budget=8 << 30)
        refiner.refine(*given(batch[:8]), SPEC)
        watch.took.clear()
        refiner.refine(*given(batch[:8]), SPEC)
        print("\n| kernel, batch of 8 | ms, with the wait for it |\n|---|---|")
        for kernel, seconds in sorted(watch.took.items(), key=lambda row: -row[1]):
            print(f"| {kernel} | {seconds * 1e3:.2f} |")


if __name__ == "__main__":
    main()
