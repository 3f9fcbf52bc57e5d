"""What a label map shows: every cluster's pixels, box and confidence.

Knows nothing of images, networks or requests: arrays in, `Area`s out.
"""

from typing import NamedTuple

import numpy as np

from models.native import bindings
from models.native.bindings import Counted
from models.types import Array

_COUNTED_PX = 2**20  # pixels counted at once: what numpy widens to 64 bits stays small


class Area(NamedTuple):
    """One cluster in one image; bbox is x, y, width, height; confidence the mean margin."""

    id: int
    pixels: int
    bbox: tuple[int, int, int, int]
    confidence: float


def compute(labels: Array, k: int, margin: Array | None = None, *, ignored: int | None = None) -> list[Area]:
    """The clusters of a label map uint8 [H, W] of ids below k, largest first, with their boxes and mean margins.

    margin   float32 of any size that shows the same image; None counts as 0
    ignored  an id, k or above, of pixels that belong to nothing: they are in no area

    Raises ValueError for any other id of k or above.
    """
    pixels, boxes, sums = bindings.count(labels, margin) or plain_count(labels, margin)
    if ignored is not None:
        pixels[ignored] = 0
    if pixels[k:].any():
        raise ValueError(f"the label map holds id {int(np.flatnonzero(pixels)[-1])}; ids below {k} were expected")
    largest = np.argsort(-pixels, kind="stable")[: np.count_nonzero(pixels)]
    return [
        Area(int(i), int(pixels[i]), (int(x), int(y), int(width), int(height)), float(sums[i] / pixels[i]))
        for i, (x, y, width, height) in zip(largest, boxes[largest], strict=True)
    ]


def plain_count(labels: Array, margin: Array | None) -> Counted:
    """`bindings.count` in numpy."""
    height, width = labels.shape
    pixels, sums = np.zeros(256, np.int64), np.zeros(256)
    by_column = np.zeros((256, width), bool)
    top, bottom = np.full(256, height), np.zeros(256, np.int64)
    columns = None if margin is None else np.arange(width) * margin.shape[1] // width
    step = max(1, _COUNTED_PX // width)
    for start in range(0, height, step):
        strip = labels[start : start + step]
        rows = np.arange(start, start + len(strip))
        count = np.bincount(strip.ravel(), minlength=256)
        pixels += count
        by_row = np.zeros((len(strip), 256), bool)
        by_row[np.arange(len(strip))[:, None], strip] = True
        by_column[strip, np.arange(width)] = True
        for cluster in np.flatnonzero(count):
            inside = rows[by_row[:, cluster]]
            top[cluster], bottom[cluster] = min(top[cluster], inside[0]), inside[-1] + 1
        if margin is not None:
            weights = margin[rows * margin.shape[0] // height][:, columns]
            sums += np.bincount(strip.ravel(), weights=weights.ravel(), minlength=256)
    boxes = np.zeros((256, 4), np.int64)
    for cluster in np.flatnonzero(pixels):
        across = np.flatnonzero(by_column[cluster])
        boxes[cluster] = across[0], top[cluster], across[-1] + 1 - across[0], bottom[cluster] - top[cluster]
    return Counted(pixels, boxes, sums)


def merge(areas: list[Area], table: Array) -> list[Area]:
    """The same image's areas once clusters are merged: largest first, boxes around both, confidence by pixels.

    table  uint8 [K]: the id that stands for each one
    """
    merged: dict[int, Area] = {}
    for area in areas:
        into = int(table[area.id])
        other = merged.get(into)
        if other is None:
            merged[into] = area._replace(id=into)
            continue
        left, top = min(area.bbox[0], other.bbox[0]), min(area.bbox[1], other.bbox[1])
        right = max(area.bbox[0] + area.bbox[2], other.bbox[0] + other.bbox[2])
        bottom = max(area.bbox[1] + area.bbox[3], other.bbox[1] + other.bbox[3])
        pixels = area.pixels + other.pixels
        confidence = (area.confidence * area.pixels + other.confidence * other.pixels) / pixels
        merged[into] = Area(into, pixels, (left, top, right - left, bottom - top), confidence)
    return sorted(merged.values(), key=lambda area: (-area.pixels, area.id))
