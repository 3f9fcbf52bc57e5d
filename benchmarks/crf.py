"""Our dense CRF against pydensecrf, image by image in turn: seconds of one core, seconds of the clock, labels.

    make oracle && python -m benchmarks.crf FOLDER_OF_PHOTOS [--images 6] [--labels 27] [--size 320]

Each photo meets three kinds of probabilities: smooth, peaked, and STEGO's flat softmax(2 · cosine). One thread each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax

from models import crf, image

Array = NDArray[Any]
SHARPNESS = {"smooth": 1.0, "peaked": 6.0, "flat": 2.0}


class Took(NamedTuple):
    """Seconds of the processor and of the clock, and the labels uint8 [H, W]."""

    cpu_s: float
    wall_s: float
    labels: Array


def probabilities(kind: str, k: int, size: int, seed: int) -> Array:
    """float32 [K, size, size]: a softmax over smooth random maps; "flat" ones are cosines, −1..1."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(k, 20, 20))
    if kind == "flat":
        coarse /= np.abs(coarse).max()
    coarse = 255 * (coarse - coarse.min()) / np.ptp(coarse)
    maps = np.stack([image.resize(np.rint(c).astype(np.uint8), (size, size)) for c in coarse]).astype(np.float32)
    scaled = SHARPNESS[kind] * (maps / 127.5 - 1)
    grown = np.exp(scaled - scaled.max(axis=0))
    return np.asarray(grown / grown.sum(axis=0), np.float32)


def pydensecrf(given: Array, photo: Array) -> Array:
    """What the published pipelines compute, colors in BGR."""
    k, height, width = given.shape
    model = DenseCRF2D(width, height, k)
    model.setUnaryEnergy(unary_from_softmax(given))
    model.addPairwiseGaussian(sxy=1, compat=3)
    model.addPairwiseBilateral(sxy=67, srgb=3, rgbim=np.ascontiguousarray(photo[:, :, ::-1]), compat=4)
    return np.argmax(model.inference(10), axis=0).astype(np.uint8).reshape(height, width)


def timed(refine: Callable[[Array, Array], Array], given: Array, photo: Array) -> Took:
    """One call, measured."""
    wall, cpu = time.perf_counter(), time.process_time()
    labels = refine(given, photo)
    return Took(time.process_time() - cpu, time.perf_counter() - wall, labels)


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--labels", type=int, default=27)
    parser.add_argument("--size", type=int, default=320)
    asked = parser.parse_args()
    crf.warm(asked.labels)
    pairs, agreement = [], []
    for i, path in enumerate(sorted(asked.photos.iterdir())[: asked.images]):
        photo = image.resize(image.load(path).image, (asked.size, asked.size))
        for kind in SHARPNESS:
            given = probabilities(kind, asked.labels, asked.size, i)
            ours, theirs = timed(crf.refine, given, photo), timed(pydensecrf, given, photo)
            pairs.append((ours, theirs))
            agreement.append(float((ours.labels == theirs.labels).mean()))
    for name in ("cpu_s", "wall_s"):
        seconds = [(float(getattr(ours, name)), float(getattr(theirs, name))) for ours, theirs in pairs]
        ratios = [theirs / ours for ours, theirs in seconds]
        mine, other = (statistics.median(side) for side in zip(*seconds, strict=True))
        print(
            f"{name}: ours {mine:.3f}, pydensecrf {other:.3f}; paired ratio, median"
            f" {statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]"
        )
    print(f"labels equal: min {min(agreement):.6f}, mean {statistics.mean(agreement):.6f}, {len(pairs)} cases")


if __name__ == "__main__":
    main()
