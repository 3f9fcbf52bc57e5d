"""Label maps told as run lengths and as polygons: milliseconds for a map of 12 Mpx, beside pycocotools and rasterio.

    python -m benchmarks.label_maps [--clusters 27] [--repeats 9]

The map is that of a network of 40 × 53 cells at 3000 × 4000 pixels; noise is the worst there is. Every tool is timed in
the same run, one after the other, again and again; medians are shown. pycocotools is given masks that are made already,
in the order it wants.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask
from rasterio import features

from models import assign
from models.polygons import TooManyRegions, regions
from models.run_length import run_lengths

SIZE = (3000, 4000)


def medians(repeats: int, works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of each, all of them in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(taken) for name, taken in times.items()}


def too_many(work: Callable[[], Any]) -> None:
    """Work that is refused."""
    try:
        work()
    except TooManyRegions:
        return
    raise AssertionError("noise was not refused")


def main() -> None:
    """Prints a line for each tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=27)
    parser.add_argument("--repeats", type=int, default=9)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    labels = assign.labels(rng.normal(size=(chosen.clusters, 40, 53)).astype(np.float32), SIZE)
    margin = rng.random((40, 53)).astype(np.float32)
    noise = rng.integers(0, chosen.clusters, SIZE).astype(np.uint8)
    masks = [np.asfortranarray(labels == i) for i in range(chosen.clusters)]
    ours, theirs = run_lengths(labels), [mask.encode(m)["counts"].decode() for m in masks]
    assert [run.counts for run in ours] == theirs, "not the same strings"
    found = regions(labels)
    print(f"{SIZE[1]}×{SIZE[0]}, {chosen.clusters} clusters, {len(found)} regions, {len(found.points)} corners")
    times = medians(
        chosen.repeats,
        {
            "run lengths": lambda: run_lengths(labels),
            "pycocotools.mask.encode of each cluster": lambda: [mask.encode(m) for m in masks],
            "polygons": lambda: list(regions(labels, margin)),
            "rasterio.features.shapes": lambda: list(features.shapes(labels, connectivity=4)),
            "run lengths of noise": lambda: run_lengths(noise),
            "polygons of noise, refused": lambda: too_many(lambda: regions(noise, margin)),
            "polygons of noise, min_area 100": lambda: list(regions(noise, margin, min_area=100)),
        },
    )
    for name, milliseconds in times.items():
        print(f"{milliseconds:9.1f} ms  {name}")
    print(f"run lengths: {times['pycocotools.mask.encode of each cluster'] / times['run lengths']:.1f} × pycocotools")
    print(f"polygons: {times['rasterio.features.shapes'] / times['polygons']:.1f} × rasterio")


if __name__ == "__main__":
    main()
