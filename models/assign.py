"""Scores on the patch grid → labels, probabilities and margins at any size.

Knows nothing of images, files or networks: numpy arrays in, numpy arrays out. A dot product commutes
with bilinear interpolation, and dividing by a pixel's length never changes which centroid wins, so
the K score maps are interpolated instead of the D-channel code; where the length matters
(probabilities, margins) it comes from the code's neighbor products, which is exact as well.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np

from models.native import bindings
from models.native.bindings import Axis, Ranked
from models.types import WHOLE, Array, Box

Assignment = Literal["cosine", "dot"]
Interpolation = Literal["bilinear", "nearest"]  # nearest: for networks whose answer is one label a patch

_STRIP = 2**18  # floats of one strip of output rows: 1 MB stays in a core's cache, 2 times faster than 16 MB
_EPS = 1e-10
_NO_CODE = "cosine similarities need the code as well as the scores"


def labels(
    scores: Array,
    size: tuple[int, int],
    box: Box = WHOLE,
    interpolation: Interpolation = "bilinear",
) -> Array:
    """The best cluster of every pixel.

    scores   float32 [K, h, w]  code · centroid on the patch grid
    size     (H, W) in pixels of the answer
    box      the part of the grid the answer shows: top, left, height, width as fractions
    returns  uint8 [H, W]       cluster ids 0..K-1; the lower id wins an exact tie

    Equal to the papers' order (upsample the code, normalize every pixel, compare).
    Source: STEGO (arXiv:2203.08414) §4, cluster probe; bilinear, align_corners=False.
    """
    found = bindings.labels(scores, *axes(scores.shape[1:], size, box, interpolation))
    return plain_labels(scores, size, box, interpolation) if found is None else found


def plain_labels(
    scores: Array, size: tuple[int, int], box: Box = WHOLE, interpolation: Interpolation = "bilinear"
) -> Array:
    """`labels` in numpy: every cluster at every pixel. What the compiled kernel is held against."""
    out = np.empty(size, np.uint8)
    for rows, strip in upsampled(scores, size, box, interpolation):
        best = strip[0].copy()
        winner = np.zeros(best.shape, np.uint8)
        for k in range(1, len(strip)):
            better = strip[k] > best
            winner[better] = k
            np.maximum(best, strip[k], out=best)
        out[rows] = winner
    return out


def probabilities(
    scores: Array,
    code: Array | None,
    size: tuple[int, int],
    *,
    temperature: float,
    assignment: Assignment = "cosine",
    box: Box = WHOLE,
    interpolation: Interpolation = "bilinear",
) -> Array:
    """softmax over clusters of temperature × similarity, for every pixel.

    scores   float32 [K, h, w];  code  float32 [D, h, w], needed where assignment is `cosine`
    returns  float32 [K, H, W], sums to 1 over K

    Source: STEGO §4.3 (temperature 2), CAUSE (temperature 3), PiCIE eq. 3 (`dot`, 1).
    """
    out = np.empty((len(scores), *size), np.float32)
    for rows, strip in similarities(scores, code, size, assignment, box, interpolation):
        strip *= temperature
        strip -= strip.max(axis=0)
        np.exp(strip, out=strip)
        strip /= strip.sum(axis=0)
        out[:, rows] = strip
    return out


def margin(
    scores: Array,
    code: Array | None,
    size: tuple[int, int],
    *,
    assignment: Assignment = "cosine",
    box: Box = WHOLE,
    interpolation: Interpolation = "bilinear",
) -> Array:
    """How clearly each pixel's cluster won: best minus second-best similarity, clipped to 0..1; of a lone cluster, how
    alike it is.

    scores   float32 [K, h, w];  code  float32 [D, h, w], needed where assignment is `cosine`
    returns  float32 [H, W]
    """
    products = _products_for(scores, code, size, assignment, box, interpolation)
    found = bindings.margin(scores, products, *axes(scores.shape[1:], size, box, interpolation))
    return plain_margin(scores, code, size, assignment, box, interpolation) if found is None else found


def plain_margin(
    scores: Array,
    code: Array | None,
    size: tuple[int, int],
    assignment: Assignment = "cosine",
    box: Box = WHOLE,
    interpolation: Interpolation = "bilinear",
) -> Array:
    """`margin` in numpy: every cluster at every pixel. What the compiled kernel is held against."""
    out = np.empty(size, np.float32)
    for rows, strip in similarities(scores, code, size, assignment, box, interpolation):
        if len(strip) == 1:
            out[rows] = np.clip(strip[0], 0.0, 1.0)
            continue
        best, second = np.maximum(strip[0], strip[1]), np.minimum(strip[0], strip[1])
        for similarity in strip[2:]:
            np.maximum(second, np.minimum(best, similarity), out=second)
            np.maximum(best, similarity, out=best)
        out[rows] = np.clip(best - second, 0.0, 1.0)
    return out


def ranked(
    scores: Array,
    code: Array | None,
    size: tuple[int, int],
    *,
    assignment: Assignment = "cosine",
    box: Box = WHOLE,
    interpolation: Interpolation = "bilinear",
) -> Ranked:
    """`margin` and `labels` at once, and the cluster that came second, the lower id of equals. A lone one is both."""
    products = _products_for(scores, code, size, assignment, box, interpolation)
    found = bindings.ranked(scores, products, *axes(scores.shape[1:], size, box, interpolation))
    return plain_ranked(scores, code, size, assignment, box, interpolation) if found is None else found


def plain_ranked(
    scores: Array,
    code: Array | None,
    size: tuple[int, int],
    assignment: Assignment = "cosine",
    box: Box = WHOLE,
    interpolation: Interpolation = "bilinear",
) -> Ranked:
    """`ranked` in numpy. What the compiled kernel is held against."""
    margin = plain_margin(scores, code, size, assignment, box, interpolation)
    best, second = np.empty(size, np.uint8), np.empty(size, np.uint8)
    for rows, strip in upsampled(scores, size, box, interpolation):
        best[rows] = winner = strip.argmax(axis=0)
        if len(strip) > 1:
            np.put_along_axis(strip, winner[None], -np.inf, axis=0)
        second[rows] = strip.argmax(axis=0)
    return Ranked(margin, best, second)


def similarity(
    scores: Array, code: Array, size: tuple[int, int], box: Box = WHOLE, interpolation: Interpolation = "bilinear"
) -> Array:
    """Cosine of every pixel with a lone centroid, float32 [H, W], -1..1.

    scores  float32 [1, h, w];  code  float32 [D, h, w]
    """
    products = _products_for(scores, code, size, "cosine", box, interpolation)
    found = bindings.margin(scores, products, *axes(scores.shape[1:], size, box, interpolation), least=-1.0)
    if found is None:
        strips = similarities(scores, code, size, "cosine", box, interpolation)
        found = np.concatenate([strip[0] for _, strip in strips]).clip(-1.0, 1.0)
    return found


def lengths(code: Array, size: tuple[int, int], box: Box = WHOLE, interpolation: Interpolation = "bilinear") -> Array:
    """Euclidean length of the interpolated code at every pixel, without interpolating it.

    code     float32 [D, h, w]
    returns  float32 [H, W]

    |Σ w_i c_i|² = Σ w_i w_j ⟨c_i, c_j⟩ over the four corners of a cell: five maps of products do.
    """
    return np.concatenate([strip for _, strip in _lengths(code, size, box, interpolation)])


def upsampled(
    maps: Array, size: tuple[int, int], box: Box = WHOLE, interpolation: Interpolation = "bilinear"
) -> Iterator[tuple[slice, Array]]:
    """Strips of rows of `maps` [K, h, w] interpolated to [K, H, W]: (rows, float32 [K, rows, W])."""
    maps = np.ascontiguousarray(maps, np.float32)
    down, across = axes(maps.shape[1:], size, box, interpolation)
    between = down.weight.any() or across.weight.any()
    for rows in _strips(size, len(maps)):
        if not between:
            yield rows, maps[:, down.low[rows, None], across.low]
            continue
        lines = maps[:, down.low[rows]]  # a copy: fancy indexing
        lines += (maps[:, down.high[rows]] - lines) * down.weight[rows, None]
        strip = lines[:, :, across.low]
        strip += (lines[:, :, across.high] - strip) * across.weight
        yield rows, strip


def _strips(size: tuple[int, int], channels: int) -> Iterator[slice]:
    step = max(1, _STRIP // max(1, channels * size[1]))
    return (slice(start, min(start + step, size[0])) for start in range(0, size[0], step))


def axes(
    grid: tuple[int, ...], size: tuple[int, int], box: Box = WHOLE, interpolation: Interpolation = "bilinear"
) -> tuple[Axis, Axis]:
    """Where the rows and the columns of an answer of `size` lie that shows `box` of a grid (h, w); both read-only."""
    top, left, height, width = box
    return (
        _axis(size[0], grid[0], top, height, interpolation),
        _axis(size[1], grid[1], left, width, interpolation),
    )


def cells(grid: tuple[int, ...], box: Box = WHOLE) -> tuple[int, int]:
    """How many of a grid's (h, w) the box takes, down and across."""
    return max(1, round(grid[0] * box[2])), max(1, round(grid[1] * box[3]))


@lru_cache(maxsize=64)  # a client sends many images of one size
def _axis(out: int, grid: int, start: float, extent: float, interpolation: Interpolation) -> Axis:
    at = ((np.arange(out) + 0.5) / out * extent + start) * grid
    if interpolation == "nearest":
        low = np.clip(at, 0, grid - 1).astype(np.int64)
        axis = Axis(low, low, np.zeros(out, np.float32))
    else:
        at = np.clip(at - 0.5, 0, grid - 1)
        at = np.where(np.abs(at - np.rint(at)) < 1e-9, np.rint(at), at)  # a place of the grid is one, rounding or not
        low = at.astype(np.int64)
        axis = Axis(low, np.minimum(low + 1, grid - 1), (at - low).astype(np.float32))
    for array in axis:
        array.flags.writeable = False
    return axis


def _lengths(code: Array, size: tuple[int, int], box: Box, how: Interpolation) -> Iterator[tuple[slice, Array]]:
    (top, bottom, down), (left, right, across) = axes(code.shape[1:], size, box, how)
    products = _products(code, bool(down.any() or across.any()))
    if len(products) == 1:  # at the grid's own places, as for the margins of most answers
        yield slice(0, size[0]), np.sqrt(products[0])[top[:, None], left]
        return
    own, right_of, below_of, falling, rising = products
    v = across[None, :]
    for rows in _strips(size, 8):
        t, b, u = top[rows, None], bottom[rows, None], down[rows, None]
        squared = (1 - u) ** 2 * ((1 - v) ** 2 * own[t, left] + v**2 * own[t, right])
        squared += u**2 * ((1 - v) ** 2 * own[b, left] + v**2 * own[b, right])
        squared += 2 * v * (1 - v) * ((1 - u) ** 2 * right_of[t, left] + u**2 * right_of[b, left])
        squared += 2 * u * (1 - u) * ((1 - v) ** 2 * below_of[t, left] + v**2 * below_of[t, right])
        squared += 2 * u * v * (1 - u) * (1 - v) * (falling[t, left] + rising[t, left])
        yield rows, np.sqrt(np.maximum(squared, 0.0, out=squared), out=squared)


def _products(code: Array, between: bool) -> Array:
    """float32 [5, h, w]: of each place's code with itself, its right neighbor, the lower one and the one right of that,
    and of its right neighbor with the lower one; [1, h, w] where nothing is asked between places."""
    code = np.ascontiguousarray(code, np.float32)
    pairs = [(code, code)]
    if between:
        below = np.concatenate([code[:, 1:], code[:, -1:]], axis=1)
        beside = np.concatenate([code[:, :, 1:], code[:, :, -1:]], axis=2)
        opposite = np.concatenate([below[:, :, 1:], below[:, :, -1:]], axis=2)
        pairs += [(code, beside), (code, below), (code, opposite), (beside, below)]
    return np.stack([np.einsum("dhw,dhw->hw", a, b) for a, b in pairs])


def _products_for(
    scores: Array, code: Array | None, size: tuple[int, int], assignment: Assignment, box: Box, how: Interpolation
) -> Array | None:
    """What pixels' lengths are made of, where they matter.

    Raises ValueError where cosines are asked for without a code.
    """
    if assignment == "dot":
        return None
    if code is None:
        raise ValueError(_NO_CODE)
    down, across = axes(scores.shape[1:], size, box, how)
    return _products(code, bool(down.weight.any() or across.weight.any()))


def similarities(
    scores: Array,
    code: Array | None,
    size: tuple[int, int],
    assignment: Assignment,
    box: Box,
    interpolation: Interpolation,
) -> Iterator[tuple[slice, Array]]:
    """Strips of cosines (or plain scores, for `dot`) of every pixel with every centroid: (rows, float32 [K, rows, W]).

    Raises ValueError where cosines are asked for without a code.
    """
    if assignment == "dot":
        yield from upsampled(scores, size, box, interpolation)
        return
    if code is None:
        raise ValueError(_NO_CODE)
    norms = lengths(code, size, box, interpolation)
    for rows, strip in upsampled(scores, size, box, interpolation):
        strip /= np.maximum(norms[rows], _EPS)
        yield rows, strip
