"""Mean-field inference of a dense CRF: compiled loops over rows of label probabilities.

Knows nothing of files, of the meaning of labels, or of default parameters: crf.py is its door.

N = H·W pixels, one row of C floats each: K labels and padding up to a whole unit (see lanes.py). One iteration is:
splat and blur the marginals on the bilateral lattice; then visit every pixel once, add unary, Gaussian message and
bilateral message, and take the softmax.

The Gaussian message needs no lattice at run time. On a regular grid the lattice filter is a fixed linear map that
joins only pixels a few steps apart, and that repeats down the image: its matrix is read off once per size as a
stencil of a few rows. The numbers are those of the lattice, not of an exact Gaussian, because the published scores
were made with it.
"""

import math
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.lanes import (
    UNITS,
    add,
    at,
    compiled,
    exp,
    fill,
    fma,
    highest,
    load,
    maximum,
    prefetch,
    store,
    total,
    unit_for,
)
from models.lattice import AHEAD, Floats, Lattice, blur, build, splat

UNIT = UNITS[0]  # where few channels are needed: for building the kernels
WIDTH = 1 << len(UNIT)
NEVER = np.float32(-1e30)  # log-probability of the labels that pad a row: its exponential is exactly zero


class Stencil(NamedTuple):
    weights: Floats  # [rows, W, T]   symmetric-normalized weight of each neighbor; zero outside the image
    steps: NDArray[np.int64]  # [T, 2]         (dy, dx) of each neighbor
    row: NDArray[np.int64]  # [H]            which row of weights an image row uses
    radius: int


def aligned(size: int) -> Floats:
    """Zeros float32 [size] that start on a cache line, so that few rows straddle two."""
    raw = np.zeros(size + 16, np.float32)
    skip = -(raw.ctypes.data // 4) % 16
    return raw[skip : skip + size]


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
    grid = build(np.stack([xs, ys], axis=1).astype(np.float32) / np.float32(sxy))
    side = 2 * radius + 1
    weights = np.zeros((rows, width, side * side), np.float32)
    values, pixels = aligned((grid.vertices + 1) * WIDTH), aligned(rows * width * WIDTH)
    for color in range(0, side * side, WIDTH):
        impulses(pixels, rows, width, side, color)
        splat(pixels, 0, grid, values, WIDTH, UNIT, 0, grid.vertices)
        blur(grid, values, WIDTH, UNIT, 0, grid.lines.size)
        responses(values, grid, weights, rows, width, side, color)

    norm = 1 / np.sqrt(weights.sum(axis=2) + 1e-20)  # [rows, W]
    norm = np.pad(norm, radius)
    for tap in range(side * side):
        dy, dx = divmod(tap, side)
        weights[:, :, tap] *= (
            norm[radius : radius + rows, radius : radius + width] * norm[dy : dy + rows, dx : dx + width]
        )
    used = np.flatnonzero(weights.max(axis=(0, 1)) > 1e-7)
    taps = -(-used.size // 4) * 4  # update() takes them by four: the last weigh nothing
    steps = np.zeros((taps, 2), np.int64)
    steps[: used.size] = np.stack(np.divmod(used, side), axis=1) - radius
    kept = np.zeros((rows, width, taps), np.float32)
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


def bilateral_lattice(image: NDArray[np.uint8], sxy: float, srgb: float, compat: float) -> Lattice:
    """The lattice over (x, y, b, g, r), scaled so that splat · blur · slice is compat × the normalized kernel."""
    height, width, _ = image.shape
    features = np.empty((height, width, 5), np.float32)
    features[:, :, 0] = np.arange(width, dtype=np.float32) / np.float32(sxy)
    features[:, :, 1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(sxy)
    features[:, :, 2:] = image[:, :, ::-1] / np.float32(srgb)  # the kernel does not mind the order, the lattice does
    built = build(features.reshape(-1, 5))
    normalize(built, aligned((built.vertices + 1) * WIDTH), np.float32(compat), UNIT)
    return built


@compiled
def normalize(lattice, values, compat, unit):  # type: ignore[no-untyped-def]
    """Symmetric normalization: K becomes compat · D^-½ K D^-½, D the row sums of K: half in splat, half in slice."""
    first, vertex, weight = lattice.first, lattice.vertex, lattice.weight
    for v in range(first.size - 1):
        values[v * WIDTH] = lattice.share[first[v] : first[v + 1]].sum()
    blur(lattice, values, WIDTH, unit, 0, lattice.lines.size)
    scale = np.empty(vertex.shape[0], np.float32)
    for p in range(vertex.shape[0]):
        a = np.float32(0)
        for r in range(vertex.shape[1]):
            a += weight[p, r] * values[np.int64(vertex[p, r]) * WIDTH]
        scale[p] = np.sqrt(compat / (a + np.float32(1e-20)))
        weight[p] *= scale[p]
    for e in range(lattice.share.size):
        lattice.share[e] *= scale[lattice.point[e]]


def log_rows(probabilities: Floats, floor: float, size: int) -> Floats:
    """Maps [K, H, W] to flat rows [N, C] of logarithms."""
    k = len(probabilities)
    rows = aligned(probabilities[0].size * size)
    enter(np.maximum(probabilities, np.float32(floor), order="C").reshape(k, -1), rows, size)
    np.log(rows, out=rows)
    rows.reshape(-1, size)[:, k:] = NEVER
    return rows


@compiled
def enter(maps, rows, size):  # type: ignore[no-untyped-def]
    """Maps [K, N] to rows [N, C]; the padding becomes one. Few pixels at a time: whole cache lines."""
    k, n = maps.shape
    for begin in range(0, n, 16):
        for label in range(size):
            for p in range(begin, min(begin + 16, n)):
                rows[p * size + label] = maps[label, p] if label < k else np.float32(1)


@compiled
def leave(rows, base, size, k, labels, marginals):  # type: ignore[no-untyped-def]
    """Rows [N, C] from pixel base on to the best label uint8 [N], and to maps [K, N] if marginals has room for them."""
    for begin in range(0, labels.size, 16):
        end = min(begin + 16, labels.size)
        for p in range(begin, end):
            row = (base + p) * size
            best = 0
            for label in range(1, k):
                if rows[row + label] > rows[row + best]:
                    best = label
            labels[p] = best
        if marginals.shape[1] > 0:
            for label in range(k):
                for p in range(begin, end):
                    marginals[label, p] = rows[(base + p) * size + label]


@compiled
def softmax(rows, row, size, unit):  # type: ignore[no-untyped-def]
    """The logarithms in rows[row:row+size] become probabilities."""
    top = load(rows, row, unit)
    for b in range(row, row + size, 1 << len(unit)):
        top = maximum(top, load(rows, b, unit))
    shift = fill(-highest(top), unit)
    mass = zero = fill(np.float32(0), unit)
    for b in range(row, row + size, 1 << len(unit)):
        e = exp(add(load(rows, b, unit), shift))
        mass = add(mass, e)
        store(rows, b, e)
    scale = np.float32(1) / total(mass)
    for b in range(row, row + size, 1 << len(unit)):
        store(rows, b, fma(scale, load(rows, b, unit), zero))


class Field(NamedTuple):
    unary: Floats  # flat [N, C]     log-probabilities
    rows: Floats  # flat            marginals, old and new, with finite values around them
    values: Floats  # flat [M+1, C]   the bilateral lattice; row M stays zero
    bilateral: Lattice
    gaussian: Stencil
    compat: np.float32  # of the Gaussian; the bilateral lattice holds its own
    size: int  # C
    unit: tuple[int, ...]


@compiled
def begin(field, source):  # type: ignore[no-untyped-def]
    """The marginals before any message: the softmax of the unary."""
    for p in range(field.unary.size // field.size):
        row = (source + p) * field.size
        for b in range(0, field.size, 1 << len(field.unit)):
            store(field.rows, row + b, load(field.unary, p * field.size + b, field.unit))
        softmax(field.rows, row, field.size, field.unit)


@compiled
def update(field, source, target, start, stop):  # type: ignore[no-untyped-def]
    """Pixels start:stop of the new marginals, from the old ones and the blurred lattice.

    Old and new lie in one buffer, from pixel source and from pixel target on. Where they overlap, the order of the
    walk makes sure that no old row is overwritten before its last neighbor has read it.
    """
    rows, values, size, unit = field.rows, field.values, field.size, field.unit
    vertex, weight, weights = field.bilateral.vertex, field.bilateral.weight, field.gaussian.weights
    _, width, taps = weights.shape
    n, corners = vertex.shape
    offsets = np.empty(taps, np.int64)
    for t in range(taps):
        offsets[t] = (field.gaussian.steps[t, 0] * width + field.gaussian.steps[t, 1]) * size
    zero = fill(np.float32(0), unit)
    p, direction = (start, 1) if target < source else (stop - 1, -1)
    for _ in range(stop - start):
        ahead = min(max(p + direction * AHEAD // 2, 0), n - 1) * corners
        for e in range(ahead, ahead + corners):
            prefetch(values, np.int64(at(vertex, e)) * size, unit)
        w = (at(field.gaussian.row, p // width) * width + p % width) * taps
        old, new = (source + p) * size, (target + p) * size
        for b in range(0, size, 1 << len(unit)):
            a0, a1, a2, a3 = (
                zero,
                zero,
                zero,
                zero,
            )  # four sums at once: each addition waits for the one before it
            for t in range(0, taps, 4):
                a0 = fma(at(weights, w + t), load(rows, old + at(offsets, t) + b, unit), a0)
                a1 = fma(at(weights, w + t + 1), load(rows, old + at(offsets, t + 1) + b, unit), a1)
                a2 = fma(at(weights, w + t + 2), load(rows, old + at(offsets, t + 2) + b, unit), a2)
                a3 = fma(at(weights, w + t + 3), load(rows, old + at(offsets, t + 3) + b, unit), a3)
            a = fma(field.compat, add(add(a0, a1), add(a2, a3)), load(field.unary, p * size + b, unit))
            for e in range(p * corners, (p + 1) * corners):
                a = fma(at(weight, e), load(values, at(vertex, e) * size + b, unit), a)
            store(rows, new + b, a)
        softmax(rows, new, size, unit)
        p += direction


@compiled
def iterate(field, source, target, iterations):  # type: ignore[no-untyped-def]
    """All iterations in one call: Python's lock is waited for once, not between any two steps."""
    lattice, values, size, unit = field.bilateral, field.values, field.size, field.unit
    for _ in range(iterations):
        splat(field.rows, source, lattice, values, size, unit, 0, lattice.first.size - 1)
        blur(lattice, values, size, unit, 0, lattice.lines.size)
        update(field, source, target, 0, lattice.vertex.shape[0])
        source, target = target, source


def iterate_threaded(field: Field, source: int, target: int, iterations: int, threads: int) -> None:
    """The same arithmetic in the same order for every row, so the answer does not depend on the number of threads."""
    lattice, values, size, unit = field.bilateral, field.values, field.size, field.unit
    vertices, pixels = share(0, lattice.vertices, threads), share(0, len(lattice.vertex), threads)
    ends = np.flatnonzero(lattice.lines == lattice.vertices) + 1  # a line of vertices is never cut
    axes = []
    for low, high in pairwise(lattice.axes.tolist()):
        cuts = np.searchsorted(ends, share(low, high, threads))
        axes.append([low, *(int(ends[cut]) for cut in cuts[1:-1]), high])

    def each(pool: Executor, function: Callable[..., None], before: tuple[Any, ...], parts: list[int]) -> None:
        for done in [pool.submit(function, *before, *part) for part in pairwise(parts)]:
            done.result()

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(iterations):
            each(pool, splat, (field.rows, source, lattice, values, size, unit), vertices)
            for axis in axes:
                each(pool, blur, (lattice, values, size, unit), axis)
            each(pool, update, (field, source, target), pixels)
            source, target = target, source


def share(start: int, stop: int, threads: int) -> list[int]:
    """The bounds of equal parts, one per thread."""
    return [start + (stop - start) * part // threads for part in range(threads + 1)]


def infer(
    probabilities: Floats,
    floor: float,
    bilateral: Lattice,
    gaussian: Stencil,
    compat: float,
    iterations: int,
    threads: int,
    marginals: bool,
) -> tuple[NDArray[np.uint8], Floats]:
    """Mean field with Potts labels.

    probabilities  float32 [K, H, W]; none counts as less than floor
    bilateral, gaussian   the two kernels; compat weighs the Gaussian, the bilateral lattice holds its own weight
    returns        uint8 [N] labels, float32 [K, N] marginals (or [K, 0] where they are not asked for)
    """
    k, height, width = probabilities.shape
    n = height * width
    unit = unit_for(k)
    size = -(-k >> len(unit)) << len(unit)
    # A neighbor is at most `margin` pixels away. One thread writes the new rows that far before (then after) the old
    # ones, over rows that are no longer needed: one buffer does for both. Several threads need two.
    margin = gaussian.radius * (width + 1)
    low, high = margin, 2 * margin if threads == 1 else 2 * margin + n
    unary = log_rows(probabilities, floor, size)
    rows = aligned((high + n + margin) * size)
    values = aligned((bilateral.vertices + 1) * size)
    field = Field(unary, rows, values, bilateral, gaussian, np.float32(compat), size, unit)
    begin(field, high)
    if threads == 1:
        iterate(field, high, low, iterations)
    else:
        iterate_threaded(field, high, low, iterations, threads)
    labels = np.empty(n, np.uint8)
    maps = np.empty((k, n if marginals else 0), np.float32)
    leave(rows, low if iterations % 2 else high, size, k, labels, maps)
    return labels, maps
