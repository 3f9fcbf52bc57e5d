"""The Gaussian term as explicit weights: what the lattice filter does on a regular grid, read off once per size.

Knows nothing of photos, probabilities or labels.

On a regular grid the lattice filter is a fixed linear map that joins only pixels a few steps apart, and that repeats
down the image: a few rows of weights tell all of it. The numbers are those of the lattice, not of an exact Gaussian,
because the published scores were made with it.
"""

import math
from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.crf.cpu.jit import compiled
from models.crf.cpu.lattice import Floats, aligned, blur, build, splat
from models.crf.cpu.simd import UNITS
from models.crf.params import CACHE_BYTES
from models.parallel import ThreadTeam

UNIT = UNITS[0]
WIDTH = 1 << len(UNIT)
NEGLIGIBLE = 1e-6
BAND = 4  # image rows that are taken at once where they have the same weights
PERIODS = (1, 2, 3)  # after so many rows the weights of the usual standard deviations repeat


class Stencil(NamedTuple):
    weights: Floats  # [rows, W, T]   symmetric-normalized weight of each neighbor; zero outside the image
    steps: NDArray[np.int64]  # [T, 2]         (dy, dx) of each neighbor
    row: NDArray[np.int64]  # [H]            which row of weights an image row uses
    radius: int


class Taps(NamedTuple):
    """The same, only with the neighbors that count: pixel (y, x) has those from first[row[y]·W + x] on."""

    first: NDArray[np.int32]  # [rows·W + 1]   all multiples of four
    weights: Floats  # [first[-1]]
    steps: NDArray[np.int32]  # [first[-1]]  pixels from here to there
    row: NDArray[np.int64]  # [H]
    bands: NDArray[np.int32]  # image rows bands[i]:bands[i+1] are BAND periods of the weights, or one row
    tallest: int  # rows in a band
    radius: int
    width: int  # W

    @property
    def nbytes(self) -> int:
        return self.first.nbytes + self.weights.nbytes + self.steps.nbytes


def taps(stencil: Stencil) -> Taps:
    """The neighbors that weigh more than NEGLIGIBLE, filled up to fours with some that weigh nothing."""
    rows, width, most = stencil.weights.shape
    counts = stencil.weights > NEGLIGIBLE
    first = np.zeros(rows * width + 1, np.int32)
    np.cumsum(-(-counts.sum(axis=2) // 4) * 4, out=first[1:])
    order = np.argsort(~counts, axis=2, kind="stable")
    sorted_weights = np.take_along_axis(np.where(counts, stencil.weights, np.float32(0)), order, axis=2)
    steps = np.where(counts, (stencil.steps @ [width, 1]).astype(np.int32), np.int32(0))
    kept = np.arange(most) < np.diff(first).reshape(rows, width, 1)
    bands = _bands(stencil.row)
    return Taps(
        first,
        sorted_weights[kept],
        np.take_along_axis(steps, order, axis=2)[kept],
        stencil.row,
        bands,
        int(np.diff(bands).max()),
        stencil.radius,
        width,
    )


def _bands(row: NDArray[np.int64]) -> NDArray[np.int32]:
    def height(ahead: NDArray[np.int64]) -> int:
        whole = (period for period in PERIODS if BAND * period <= ahead.size)
        alike = (period for period in whole if np.ptp(ahead[: BAND * period].reshape(BAND, period), axis=0).max() == 0)
        return BAND * next(alike, 0) or 1

    bands = [0]
    while bands[-1] < row.size:
        bands.append(bands[-1] + height(row[bands[-1] :]))
    return np.asarray(bands, np.int32)


def gaussian_stencil(height: int, width: int, sxy: float) -> Stencil:
    """The lattice filter with standard deviation sxy on a grid, as explicit weights.

    A lattice step is sxy pixels long. Splat and slice reach less than one step, blur two: nothing beyond 4·sxy is
    joined. A shift by sxy pixels down maps the lattice onto itself, so rows repeat as soon as a whole number of rows is
    a whole number of steps. Only rows near the border are their own: where vertices are missing, and as far again,
    where a neighbor's normalization notices.
    """
    radius = math.ceil(4 * sxy) - 1
    border = 2 * (radius + 1)
    period = next((p for p in range(1, height) if abs(p / sxy - round(p / sxy)) < 1e-6), height)
    rows = 2 * border + period + (height - 2 * border) % period
    if rows < height:
        middle = border + np.arange(height - 2 * border) % period
        row = np.concatenate([np.arange(border), middle, np.arange(rows - border, rows)])
    else:
        rows, row = height, np.arange(height)

    ys, xs = np.divmod(np.arange(rows * width), width)
    grid = build(np.stack([xs, ys], axis=1).astype(np.float32) / np.float32(sxy), ThreadTeam(1))
    side = 2 * radius + 1
    weights = np.zeros((rows, width, side * side), np.float32)
    values, pixels = aligned((grid.vertices + 1) * WIDTH), aligned(rows * width * WIDTH)
    for color in range(0, side * side, WIDTH):
        impulses(pixels, rows, width, side, color)
        splat(pixels, 0, grid, values, WIDTH, WIDTH, UNIT, 0, 0, grid.vertices)
        blur(grid, values, WIDTH, UNIT, 0, WIDTH)
        responses(values, grid, weights, rows, width, side, color)

    norm = 1 / np.sqrt(weights.sum(axis=2) + 1e-20)  # [rows, W]
    norm = np.pad(norm, radius)
    for tap in range(side * side):
        dy, dx = divmod(tap, side)
        weights[:, :, tap] *= (
            norm[radius : radius + rows, radius : radius + width] * norm[dy : dy + rows, dx : dx + width]
        )
    used = np.flatnonzero(weights.max(axis=(0, 1)) > 1e-7)
    size = -(-used.size // 4) * 4  # readers take them by four: the last weigh nothing
    steps = np.zeros((size, 2), np.int64)
    steps[: used.size] = np.stack(np.divmod(used, side), axis=1) - radius
    kept = np.zeros((rows, width, size), np.float32)
    kept[:, :, : used.size] = weights[:, :, used]
    return Stencil(kept, steps, row.astype(np.int64), radius)


@compiled
def impulses(pixels, rows, width, side, color):  # type: ignore[no-untyped-def]
    """Rows of eight channels; channel c is one on a grid of pixels so far apart that their responses do not meet."""
    pixels[:] = 0
    for p in range(rows * width):
        channel = (p // width % side) * side + p % width % side - color
        if 0 <= channel < WIDTH:
            pixels[p * WIDTH + channel] = 1


@compiled
def responses(values, grid, weights, rows, width, side, color):  # type: ignore[no-untyped-def]
    """Slices the impulses' answers and files each under the step to the only impulse that can have caused it."""
    radius = side // 2
    for p in range(rows * width):
        y, x = p // width, p % width
        for channel in range(min(WIDTH, side * side - color)):
            dy = ((color + channel) // side - y + radius) % side
            dx = ((color + channel) % side - x + radius) % side
            a = np.float32(0)
            for r in range(grid.vertex.shape[1]):
                a += grid.weight[p, r] * values[np.int64(grid.vertex[p, r]) * WIDTH + channel]
            weights[y, x, dy * side + dx] = a


_kept_taps: OrderedDict[tuple[int, int, float], Taps] = OrderedDict()  # least recently used first
_kept_lock = Lock()


def smoothing_taps(height: int, width: int, sxy: float) -> Taps:
    """The Gaussian term depends on the size alone, and a service sees few sizes: kept, up to CACHE_BYTES in all."""
    key = height, width, sxy
    with _kept_lock:
        if key in _kept_taps:
            _kept_taps.move_to_end(key)
            return _kept_taps[key]
    made = taps(gaussian_stencil(height, width, sxy))
    with _kept_lock:
        _kept_taps[key] = made
        while sum(one.nbytes for one in _kept_taps.values()) > CACHE_BYTES:
            _kept_taps.popitem(last=False)
    return made
