"""What the embedded default is worth: Hungarian scores on CamVid by drive, and milliseconds a photo.

    python -m benchmarks.embedded [BUNDLE] [--data ../shared/data/camvid]
    python -m benchmarks.embedded --choose RUN RUN RUN          which of several runs is to be it, without a label

Labels are read here and nowhere in training. Every pixel counts; pixels of unmatched clusters are errors. The label
maps are those of the serving path: bundle, onnxruntime, assignment at the photo's size. `tessera evaluate` says more,
but not by drive.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from models.bundle import Bundle
from models.inference import segment, self_test
from service.engines import Engine, open_engine
from service.settings import Settings, embedded
from training.data import datasets
from training.data.datasets.camvid import drive
from training.discovery.crop_stability import crop_stability
from training.evaluation import metrics
from training.evaluation.label_maps import enlarged


def quality(bundle: Bundle, encode: Engine, data: Path, split: str) -> None:
    """Prints mIoU, accuracy and per-class IoU of one split, and of each of its drives with the split's matching."""
    images = datasets.open("camvid", data, split=split, console=Console(quiet=True))
    clusters, classes = len(bundle.manifest.clusters), len(images.class_names)
    by_drive: dict[str, np.ndarray] = {}
    for i, path in enumerate(images.paths):
        truth = images.labels(i)
        found = enlarged(segment(bundle, encode, images[i]), truth.shape)
        counted = metrics.confusion(found, truth, clusters, classes)
        by_drive[drive(path)] = by_drive.get(drive(path), 0) + counted
    whole = metrics.score(np.sum(list(by_drive.values()), axis=0))
    print(f"{split:6} {len(images)} frames: mIoU {whole.miou:.3f}, accuracy {whole.accuracy:.3f}")
    print("       " + "  ".join(f"{n} {v:.2f}" for n, v in zip(images.class_names, whole.iou, strict=True)))
    for name, counted in sorted(by_drive.items()):
        own = metrics.score(counted, whole.match)
        print(f"       {name}: mIoU {own.miou:.3f}, accuracy {own.accuracy:.3f} (the split's matching)")


def choose(runs: Sequence[Path], data: Path) -> None:
    """Prints what is known of each run without labels, best first.

    The fewest groups that the parts of the folder bear come first: agreement beyond chance still grows with the number
    of groups, and may be compared between equal ones only. Then two shares, each 0..1, are added: of a crop's pixels
    that stay in their cluster, and how far parts of the folder agree on the clusters. The sum was written down before
    any run was scored, the order by groups after some were: see docs/training.md.
    """
    images = datasets.open("camvid", data, split="train", console=Console(quiet=True))
    found = []
    for run in runs:
        bundle = Bundle.load(run / "bundle")
        encode = open_engine(bundle, Settings(engine="onnxruntime"))
        crops = crop_stability(partial(segment, bundle, encode), images, seed=0)
        merging = json.loads((run / "cache" / "facts" / "merging.json").read_text())
        found.append((-merging["groups"], crops + merging["whole"], crops, merging["whole"], run, bundle.ref))
    for groups, total, crops, parts, run, ref in sorted(found, reverse=True):
        print(f"{run}  {ref}  {-groups} groups, {total:.3f} = crops {crops:.3f} + parts {parts:.3f}")


def latency(bundle: Bundle, encode: Engine, photo: np.ndarray, repeats: int = 50) -> None:
    """Prints the median time from pixels to label map."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        segment(bundle, encode, photo)
        seconds.append(time.perf_counter() - began)
    low, high = min(seconds), max(seconds)
    print(
        f"{photo.shape[1]}×{photo.shape[0]}, {encode.provider}: median {statistics.median(seconds) * 1000:.1f} ms"
        f" [{low * 1000:.1f}–{high * 1000:.1f}], {repeats} runs, bundle {_size(bundle.path) / 1e6:.1f} MB"
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", nargs="?", type=Path, help="default: the embedded one")
    parser.add_argument("--choose", nargs="+", type=Path, metavar="RUN", default=[])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/camvid"))
    given = parser.parse_args()
    if given.choose:
        choose(given.choose, given.data)
        return
    bundle = Bundle.load(given.bundle or embedded()[0])
    encode = open_engine(bundle, Settings(engine="onnxruntime"))
    print(f"{bundle.ref}: golden image agrees on {self_test(bundle, encode):.2%}")
    latency(bundle, encode, bundle.golden.image)
    if not given.data.is_dir():
        print(f"{given.data} is not here: no scores", file=sys.stderr)
        return
    for split in ("train", "val"):
        quality(bundle, encode, given.data, split)


if __name__ == "__main__":
    main()
