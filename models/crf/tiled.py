"""The dense CRF of a large photo, window by window: memory for one window, and answers that blend into each other.

Knows nothing of networks or requests: probabilities of any rectangle on demand, pixels in, labels out.

Windows overlap. Where two do, their marginals are averaged with weights that fall to nothing at a window's own border,
so that no border shows; labels are read from the average. What a window cannot see is what lies farther away than the
overlap: there the answer differs from the CRF of the whole photo as far as distant pixels of like color matter.
"""

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from models.crf.params import CRFParams, Refined
from models.deadline import Until, check_time
from models.types import Array

Span = tuple[int, int]  # first pixel and the one after the last

WINDOW, OVERLAP = 448, 128


def refine(
    probabilities: Callable[[Span, Span], Array],
    photo: Array,
    params: CRFParams,
    solve: Callable[..., Refined],
    *,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    deadline: Until = None,
) -> Array:
    """The most probable label of every pixel.

    probabilities  float32 [K, rows, columns] of the pixels in two spans, which sums to 1 over K
    photo          uint8 [H, W, 3], RGB
    solve          refines a window: models.crf.dense.refine with its marginals, or models.crf.reference.refine
    window         the longest side of a window;  overlap  pixels that neighbors share, less than half of it
    returns        uint8 [H, W]

    Raises DeadlineExceeded as soon as the windows done tell that the rest would take twice the time there is.
    """
    height, width = photo.shape[:2]
    rows, columns = spans(height, window, overlap), spans(width, window, overlap)
    labels = np.empty((height, width), np.uint8)
    began, todo = time.monotonic(), len(rows) * len(columns)
    above: list[Array] = []  # of each window in the row above: its share of the pixels below it
    for y, (top, bottom) in enumerate(rows):
        down = _ramp(rows, y)
        below: list[Array] = []
        beside: Array | None = None
        for x, (left, right) in enumerate(columns):
            given = probabilities((top, bottom), (left, right))
            shares = solve(given, photo[top:bottom, left:right], params, deadline=deadline).marginals
            del given
            shares *= down[:, None] * _ramp(columns, x)
            if beside is not None:
                shares[:, :, : beside.shape[2]] += beside
            if above:
                shares[:, : above[x].shape[1], : above[x].shape[2]] += above[x]
            # What the neighbors below and to the right have a share in is handed on to them.
            inner_bottom, inner_right = _next(rows, y) - top, _next(columns, x) - left
            beside = shares[:, :, inner_right:].copy()
            below.append(shares[:, inner_bottom:, :inner_right].copy())
            labels[top : top + inner_bottom, left : left + inner_right] = shares[:, :inner_bottom, :inner_right].argmax(
                axis=0
            )
            took, done = time.monotonic() - began, y * len(columns) + x + 1
            check_time(deadline, ahead_s=took / done * (todo - done) / 2)
        above = below
    return labels


def spans(length: int, window: int, overlap: int) -> list[Span]:
    """Spans of one length (but for a pixel), as few as there may be, that overlap by about as much as asked for."""
    count = max(1, -(-(length - overlap) // (window - overlap)))
    size = -(-(length + (count - 1) * overlap) // count)
    starts = [round(i * (length - size) / max(1, count - 1)) for i in range(count)]
    return [(start, start + size) for start in starts]


def _next(parts: list[Span], which: int) -> int:
    """Where the next span begins; where the last one ends."""
    return parts[which + 1][0] if which + 1 < len(parts) else parts[which][1]


def _ramp(parts: list[Span], which: int) -> Array:
    """The weight of every pixel of a span, float32: rising and falling where it meets its neighbors, 1 elsewhere."""
    start, stop = parts[which]
    weight = np.ones(stop - start, np.float32)
    for (_, end), (begin, _) in pairwise(parts[max(0, which - 1) : which + 2]):
        shared = end - begin
        rising = (np.arange(shared, dtype=np.float32) + 0.5) / shared
        if begin == start:
            weight[:shared] = rising
        else:
            weight[-shared:] = 1 - rising
    return weight
