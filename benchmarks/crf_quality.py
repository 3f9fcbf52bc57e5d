"""Refined label maps against CamVid's ground truth: mIoU, accuracy, F-score of the borders, milliseconds an image.

A border pixel has a neighbor of another class, after the Hungarian matching of the whole split. It is found where the
other map has a border pixel within two pixels, along rows and columns alike. F is the harmonic mean of the share of
drawn borders that are true and the share of true borders that are drawn, over all images at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.console import Console

from models import assign, crf
from models.bundle import Bundle
from models.image import Fit, fit
from models.refined import refined
from service.engines import open_engine
from service.settings import Settings, embedded
from training import datasets, metrics
from training.datasets import IGNORED
from training.evaluation.label_maps import enlarged

Array = NDArray[Any]
NEAR = 2


class Frame(NamedTuple):
    """A photo, what the network was given of it and answered, and the truth."""

    photo: Array
    fitted: Fit
    scores: Array
    code: Array
    truth: Array


def borders(classes: Array) -> Array:
    """bool [H, W]: pixels beside one of another class."""
    found = np.zeros(classes.shape, bool)
    down, across = classes[1:] != classes[:-1], classes[:, 1:] != classes[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= across
    found[:, :-1] |= across
    return found


def widened(mask: Array) -> Array:
    """bool [H, W]: pixels at most NEAR from one of the mask."""
    drawn = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(drawn.filter(ImageFilter.MaxFilter(2 * NEAR + 1))) > 0


def row(name: str, frames: list[Frame], clusters: int, classes: int, way: Callable[[Frame], Array]) -> str:
    """One line of the table: `way` makes a label map."""
    seconds, maps, confusion = [], [], np.zeros((clusters, classes), np.int64)
    for frame in frames:
        began = time.process_time()
        labels = way(frame)
        seconds.append(time.process_time() - began)
        maps.append(enlarged(labels, frame.truth.shape))
        confusion += metrics.confusion(maps[-1], frame.truth, clusters, classes)
    scores = metrics.score(confusion)
    to_class = np.where(scores.match == metrics.EXTRA, IGNORED - 1, scores.match).astype(np.uint8)
    right = drawn = found = true = 0
    for labels, frame in zip(maps, frames, strict=True):
        counted = frame.truth != IGNORED
        ours, theirs = borders(to_class[labels]) & counted, borders(frame.truth) & counted
        right += int((ours & widened(theirs)).sum())
        found += int((theirs & widened(ours)).sum())
        drawn, true = drawn + int(ours.sum()), true + int(theirs.sum())
    precision, recall = right / drawn, found / true
    f = 2 * precision * recall / (precision + recall)
    return (
        f"| {name} | {scores.miou:.4f} | {scores.accuracy:.4f} | {f:.4f} | {precision:.3f} | {recall:.3f}"
        f" | {statistics.median(seconds) * 1000:.1f} |"
    )


def table(data: Path, bundle_path: Path | None, split: str, every: int) -> None:
    """Prints it."""
    bundle = Bundle.load(bundle_path or embedded()[0])
    encode, code = open_engine(bundle, Settings(engine="onnxruntime")), bundle.manifest.code
    images = datasets.open("camvid", data, split=split, console=Console(quiet=True))
    frames = []
    for i in range(0, len(images), every):
        fitted = fit(images[i], bundle.manifest.input)
        answer = encode(fitted.pixels[None], code=True)
        assert answer.code is not None
        frames.append(Frame(images[i], fitted, answer.scores[0], answer.code[0], images.labels(i)))
    clusters, classes = len(bundle.manifest.clusters), len(images.class_names)
    crf.warm(clusters)

    def refine(**how: Any) -> Callable[[Frame], Array]:
        def way(frame: Frame) -> Array:
            return refined(
                frame.scores, frame.code, frame.fitted, photo=frame.photo, temperature=code.temperature,
                assignment=code.assignment, interpolation=code.interpolation, **how,
            )  # fmt: skip

        return way

    def plain(frame: Frame) -> Array:
        return assign.labels(frame.scores, frame.fitted.source, frame.fitted.box, interpolation=code.interpolation)

    ways = {
        "none": plain,
        "fast": refine(how="fast"),
        "fast, at the source's size": refine(how="fast", at="source"),
        "dense": refine(),
        "dense, at the source's size": refine(at="source"),
    }
    print(
        f"{bundle.ref}, CamVid {split}, {len(frames)} frames of {frames[0].photo.shape[1]}×{frames[0].photo.shape[0]}"
    )
    print("| refined | mIoU | accuracy | border F | precision | recall | CPU ms |")
    print("|---|---|---|---|---|---|---|")
    for name, way in ways.items():
        print(row(name, frames, clusters, classes, way), flush=True)
