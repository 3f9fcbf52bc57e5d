"""Mean-field inference of a dense CRF: compiled loops over rows of label probabilities.

Knows nothing of files, of the meaning of labels, or of default parameters: crf.py is its door.

N = H·W pixels, K labels in rows of C = 16·blocks floats, pixel after pixel. One iteration is: splat and blur the marginals on
the bilateral lattice, then visit every pixel once to add unary, Gaussian message and bilateral message, and take the softmax.

The Gaussian message needs no lattice at run time. On a regular grid the lattice filter is a fixed linear map that joins only
pixels a few steps apart, and that repeats down the image: its matrix is read off once per size as a stencil of a few rows.
The numbers are those of the lattice, not of an exact Gaussian, because the published scores were made with the lattice.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.lanes import WIDTH, add, at, compiled, exp, fill, fma, highest, load, maximum, store, total
from models.lattice import Floats, Indices, Lattice, blur, build, splat

NEVER = np.float32(-1e30)  # log-probability of the labels that pad a row: its exponential is exactly zero


class Stencil(NamedTuple):
    weights: Floats  # [rows, W, T]   symmetric-normalized weight of each neighbor; zero outside the image
    steps: Indices  # [T, 2]         (dy, dx) of each neighbor
    row: Indices  # [H]            which row of weights an image row uses
    radius: int

    @property
    def nbytes(self) -> int:
        return int(self.weights.nbytes)


def aligned(size: int) -> Floats:
    """Zeros float32 [size] that start on a cache line, so that sixteen floats never straddle two."""
    raw = np.zeros(size + WIDTH, np.float32)
    skip = -(raw.ctypes.data // 4) % WIDTH
    return raw[skip : skip + size]


def gaussian_stencil(height: int, width: int, sxy: float) -> Stencil:
    """The lattice filter with standard deviation sxy on a grid, as explicit weights.

    A lattice step is sxy pixels long. Splat and slice reach less than one step, blur two: nothing beyond 4·sxy is joined.
    Shifting by sxy pixels down maps the lattice onto itself, so rows repeat as soon as a whole number of rows is a whole
    number of steps; only rows near the border, where vertices are missing, are their own.
    """
    radius = math.ceil(4 * sxy) - 1
    border = radius + 2
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
        splat(pixels, 0, grid, values, 1, 0, grid.vertices)
        blur(grid, values, 1, 0, grid.lines.size)
        responses(values, grid, weights, rows, width, side, color)

    norm = 1 / np.sqrt(weights.sum(axis=2) + 1e-20)  # [rows, W]
    norm = np.pad(norm, radius)
    for tap in range(side * side):
        dy, dx = divmod(tap, side)
        weights[:, :, tap] *= (
            norm[radius : radius + rows, radius : radius + width] * norm[dy : dy + rows, dx : dx + width]
        )
    used = np.flatnonzero(weights.max(axis=(0, 1)) > 1e-7)
    unused = np.flatnonzero(weights.max(axis=(0, 1)) <= 1e-7)[:1]
    used = np.concatenate([used, np.repeat(unused, -len(used) % 4)])
    steps = np.stack(np.divmod(used, side), axis=1) - radius
    return Stencil(np.ascontiguousarray(weights[:, :, used]), steps.astype(np.int32), row.astype(np.int32), radius)


@compiled
def impulses(pixels, rows, width, side, color):  # type: ignore[no-untyped-def]
    """Rows of sixteen channels; channel c is one on a grid of pixels so far apart that their responses do not meet."""
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


def bilateral_lattice(image: np.ndarray, sxy: float, srgb: float, compat: float) -> Lattice:
    """The lattice over (x, y, b, g, r), its weights scaled so that splat · blur · slice is compat × the normalized kernel."""
    height, width, _ = image.shape
    features = np.empty((height, width, 5), np.float32)
    features[:, :, 0] = np.arange(width, dtype=np.float32) / np.float32(sxy)
    features[:, :, 1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(sxy)
    features[:, :, 2:] = image[:, :, ::-1] / np.float32(srgb)  # the kernel does not mind the order, the lattice does
    built = build(features.reshape(-1, 5))
    normalize(built, aligned((built.vertices + 1) * WIDTH), np.float32(compat))
    return built


@compiled
def normalize(lattice, values, compat):  # type: ignore[no-untyped-def]
    """Symmetric normalization: K becomes D^-½ K D^-½ with D the row sums of K, half on each side, and so with compat."""
    first, vertex, weight = lattice.first, lattice.vertex, lattice.weight
    for v in range(first.size - 1):
        values[v * WIDTH] = lattice.share[first[v] : first[v + 1]].sum()
    blur(lattice, values, 1, 0, lattice.lines.size)
    scale = np.empty(vertex.shape[0], np.float32)
    for p in range(vertex.shape[0]):
        a = np.float32(0)
        for r in range(vertex.shape[1]):
            a += weight[p, r] * values[np.int64(vertex[p, r]) * WIDTH]
        scale[p] = np.sqrt(compat / (a + np.float32(1e-20)))
        weight[p] *= scale[p]
    for e in range(lattice.share.size):
        lattice.share[e] *= scale[lattice.point[e]]


@compiled
def enter(logs, rows, blocks):  # type: ignore[no-untyped-def]
    """Maps [K, N] to rows [N, C]; labels that pad the row never occur. Sixteen pixels at a time: whole cache lines."""
    k, n = logs.shape
    c = blocks * WIDTH
    for begin in range(0, n, WIDTH):
        for label in range(c):
            for p in range(begin, min(begin + WIDTH, n)):
                rows[p * c + label] = logs[label, p] if label < k else NEVER


@compiled
def leave(rows, base, blocks, k, labels, marginals):  # type: ignore[no-untyped-def]
    """Rows [N, C] from pixel base on to the best label uint8 [N], and to maps [K, N] where marginals has room for them."""
    c = blocks * WIDTH
    for begin in range(0, labels.size, WIDTH):
        end = min(begin + WIDTH, labels.size)
        for p in range(begin, end):
            at = (base + p) * c
            best = 0
            for label in range(1, k):
                if rows[at + label] > rows[at + best]:
                    best = label
            labels[p] = best
        if marginals.shape[1] > 0:
            for label in range(k):
                for p in range(begin, end):
                    marginals[label, p] = rows[(base + p) * c + label]


@compiled
def softmax(rows, at, blocks):  # type: ignore[no-untyped-def]
    """One row of logarithms becomes probabilities, in place."""
    top = load(rows, at)
    for b in range(1, blocks):
        top = maximum(top, load(rows, at + b * WIDTH))
    shift = fill(-highest(top))
    mass = fill(np.float32(0))
    for b in range(blocks):
        e = exp(add(load(rows, at + b * WIDTH), shift))
        mass = add(mass, e)
        store(rows, at + b * WIDTH, e)
    scale, zero = np.float32(1) / total(mass), fill(np.float32(0))
    for b in range(blocks):
        store(rows, at + b * WIDTH, fma(scale, load(rows, at + b * WIDTH), zero))


class Field(NamedTuple):
    unary: Floats  # flat [N, C]     log-probabilities
    rows: Floats  # flat             marginals, old and new, with finite values around them
    values: Floats  # flat [M+1, C]   the bilateral lattice; row M stays zero
    bilateral: Lattice
    gaussian: Stencil
    offsets: Indices  # [T]             pixels from a pixel to each of its neighbors
    compat: np.float32  # of the Gaussian; the bilateral lattice holds its own
    blocks: int


@compiled
def update(field, source, target, start, stop):  # type: ignore[no-untyped-def]
    """Pixels start:stop of the new marginals, from the old ones and the blurred lattice.

    Old and new lie in one buffer, from pixel source and from pixel target on. Where they overlap, the order of the walk
    makes sure that no old row is overwritten before its last neighbor has read it.
    """
    rows, values, offsets, weights = field.rows, field.values, field.offsets, field.gaussian.weights
    vertex, weight = field.bilateral.vertex, field.bilateral.weight
    width, size = weights.shape[1], field.blocks * WIDTH
    zero = fill(np.float32(0))
    taps, corners = offsets.size, vertex.shape[1]
    for i in range(stop - start):
        p = start + i if target < source else stop - 1 - i
        w = (at(field.gaussian.row, p // width) * width + p % width) * taps
        old, new = (source + p) * size, (target + p) * size
        for b in range(0, size, WIDTH):
            a0, a1, a2, a3 = zero, zero, zero, zero  # four sums at once: an addition must wait four cycles for the last
            for t in range(0, taps, 4):
                a0 = fma(at(weights, w + t), load(rows, old + at(offsets, t) + b), a0)
                a1 = fma(at(weights, w + t + 1), load(rows, old + at(offsets, t + 1) + b), a1)
                a2 = fma(at(weights, w + t + 2), load(rows, old + at(offsets, t + 2) + b), a2)
                a3 = fma(at(weights, w + t + 3), load(rows, old + at(offsets, t + 3) + b), a3)
            smooth = add(add(a0, a1), add(a2, a3))
            a = fma(field.compat, smooth, load(field.unary, p * size + b))
            for e in range(p * corners, (p + 1) * corners):
                a = fma(at(weight, e), load(values, at(vertex, e) * size + b), a)
            store(rows, new + b, a)
        softmax(rows, new, field.blocks)


@compiled
def begin(field, source):  # type: ignore[no-untyped-def]
    """The marginals before any message: the softmax of the unary."""
    size = field.blocks * WIDTH
    for p in range(field.unary.size // size):
        for i in range(0, size, WIDTH):
            store(field.rows, (source + p) * size + i, load(field.unary, p * size + i))
        softmax(field.rows, (source + p) * size, field.blocks)


@compiled
def iterate(field, source, target, iterations):  # type: ignore[no-untyped-def]
    """All iterations in one call: the lock is waited for once, not between any two steps."""
    lattice, n = field.bilateral, field.bilateral.vertex.shape[0]
    for _ in range(iterations):
        splat(field.rows, source, lattice, field.values, field.blocks, 0, lattice.first.size - 1)
        blur(lattice, field.values, field.blocks, 0, lattice.lines.size)
        update(field, source, target, 0, n)
        source, target = target, source


def iterate_threaded(field: Field, source: int, target: int, iterations: int, threads: int) -> None:
    """The same arithmetic in the same order for every row, so the answer does not depend on the number of threads."""
    lattice, values, blocks = field.bilateral, field.values, field.blocks
    rows = [int(v) for v in np.linspace(0, lattice.vertices, threads + 1)]
    pixels = [int(p) for p in np.linspace(0, len(lattice.vertex), threads + 1)]
    ends = np.flatnonzero(lattice.lines == lattice.vertices) + 1  # a line is never cut
    cuts = []
    for low, high in pairwise(int(a) for a in lattice.axes):
        inner = ends[np.searchsorted(ends, np.linspace(low, high, threads + 1)[1:-1])] if high > low else []
        cuts.append([low, *(int(i) for i in inner), high])
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(iterations):
            list(pool.map(lambda a, b: splat(field.rows, source, lattice, values, blocks, a, b), rows, rows[1:]))
            for cut in cuts:
                list(pool.map(lambda a, b: blur(lattice, values, blocks, a, b), cut, cut[1:]))
            list(pool.map(lambda a, b: update(field, source, target, a, b), pixels, pixels[1:]))
            source, target = target, source


def infer(
    logs: Floats, bilateral: Lattice, gaussian: Stencil, compat: float, iterations: int, threads: int, marginals: bool
) -> tuple[NDArray[np.uint8], Floats]:
    """Mean field with Potts labels.

    logs       float32 [K, N]   log-probabilities
    bilateral, gaussian         the two kernels; compat weighs the Gaussian, the bilateral lattice holds its weight
    returns    uint8 [N] labels, float32 [K, N] marginals (or [K, 0] where they are not asked for)
    """
    k, n = logs.shape
    blocks = -(-k // WIDTH)
    width = gaussian.weights.shape[1]
    # A neighbor is at most `margin` pixels away. One thread writes the new rows that far before (then after) the old ones,
    # each just when it is no longer needed, so both fit in one buffer; several threads need two apart.
    margin = gaussian.radius * (width + 1)
    low, high = margin, 2 * margin if threads == 1 else 2 * margin + n
    rows = aligned((high + n + margin) * blocks * WIDTH)
    unary = aligned(n * blocks * WIDTH)
    enter(logs, unary, blocks)
    values = aligned((bilateral.vertices + 1) * blocks * WIDTH)
    offsets = gaussian.steps @ np.array([width, 1]) * blocks * WIDTH
    field = Field(unary, rows, values, bilateral, gaussian, offsets, np.float32(compat), blocks)
    begin(field, high)
    if threads == 1:
        iterate(field, high, low, iterations)
    else:
        iterate_threaded(field, high, low, iterations, threads)
    labels = np.empty(n, np.uint8)
    maps = np.empty((k, n if marginals else 0), np.float32)
    leave(rows, low if iterations % 2 else high, blocks, k, labels, maps)
    return labels, maps
