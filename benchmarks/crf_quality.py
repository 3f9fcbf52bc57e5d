"""Refined label maps against CamVid's ground truth: mIoU, accuracy, F-score of the borders, milliseconds an image.

A border pixel has a neighbor of another class, after the Hungarian matching of the whole split. It is found where the
other map has a border pixel within two pixels, along rows and columns alike. F is the harmonic mean of the share of
drawn borders that are true and the share of true borders that are drawn, over all images at once.
"""

import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console

from models.bundle import Bundle
from models.crf.cpu.warmup import warm
from models.preprocess import Fit, fit
from models.types import Array
from service.settings import embedded
from training.data import datasets
from training.data.label_maps import IGNORED
from training.evaluation import metrics
from training.evaluation.exported import Answer, open_networks
from training.evaluation.label_maps import Edges, Mapper, Way, enlarged

NEAR = 2
EDGES = (None, Edges("fast"), Edges("fast", "source"), Edges("dense"), Edges("dense", "source"))


class Frame(NamedTuple):
    """A photo, what the network was given of it and answered, and the truth."""

    photo: Array
    fitted: Fit
    answer: Answer
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


def row(mapper: Mapper, way: Way, frames: list[Frame], classes: int) -> str:
    """One line of the table."""
    clusters = len(mapper.bundle.manifest.clusters)
    seconds, maps, confusion = [], [], np.zeros((clusters, classes), np.int64)
    for frame in frames:
        began = time.process_time()
        labels = mapper.read(frame.answer, frame.fitted, frame.photo, way)
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
        f"| {way.name} | {scores.miou:.4f} | {scores.accuracy:.4f} | {f:.4f} | {precision:.3f} | {recall:.3f}"
        f" | {statistics.median(seconds) * 1000:.1f} |"
    )


def table(data: Path, bundle_path: Path | None, split: str, every: int) -> None:
    """Prints it: every way to refine, the names those of `tessera evaluate`."""
    bundle = Bundle.load(bundle_path or embedded()[0])
    opened = open_networks(bundle, flip=False, features=False, device="cpu")
    images = datasets.open("camvid", data, split=split, console=Console(quiet=True))
    frames = []
    for i in range(0, len(images), every):
        fitted = fit(images[i], bundle.manifest.input)
        frames.append(Frame(images[i], fitted, opened.exported.answer(fitted.pixels), images.labels(i)))
    warm()
    print(
        f"{bundle.ref}, CamVid {split}, {len(frames)} frames of {frames[0].photo.shape[1]}×{frames[0].photo.shape[0]}"
    )
    print("| refined | mIoU | accuracy | border F | precision | recall | CPU ms |")
    print("|---|---|---|---|---|---|---|")
    for edges in EDGES:
        way = Way(flip=opened.served, edges=edges)
        print(row(Mapper(bundle, opened.networks), way, frames, len(images.class_names)), flush=True)
