"""Mean-field inference of a dense CRF: compiled loops over rows of label probabilities.

Knows nothing of files or of the meaning of labels, and checks nothing: models.crf.dense is its door.

N = H·W pixels, one row of C floats each: K labels and padding up to a whole unit (see simd.py). One iteration is:
splat and blur the marginals on the bilateral lattice; then visit every pixel once, add unary, Gaussian message and
bilateral message, and take the softmax. The Gaussian message needs no lattice at run time (see stencil.py).

Memory: the unary is N rows of K, the marginals and the lattice's values are N and M rows of C. M is about N for
photos and up to 6·N for noise; beyond ROOMY·N the lattice holds half the channels at a time, or fewer, and each
iteration filters them in turn.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.crf.cpu.jit import compiled
from models.crf.cpu.lattice import AHEAD, Floats, Lattice, aligned, blur, build, masses, normalize, scale_edges, splat
from models.crf.cpu.simd import (
    FOUR,
    ONE,
    add,
    at,
    exp,
    fill,
    first_lane,
    fma,
    highest,
    load,
    maximum,
    prefetch,
    store,
    total,
    unit_for,
)
from models.crf.cpu.stencil import BAND, Taps
from models.crf.params import CRFParams
from models.parallel import ThreadTeam

NEVER = np.float32(-1e30)  # log-probability of the labels that pad a row: its exponential is exactly zero
CORNERS = 6  # of the simplex around a point of the five features x, y, b, g, r; a loop of known length is unrolled
ROOMY = 1.3  # vertices a pixel that may hold 32 channels at once


def row_size(k: int) -> int:
    """C: k labels, filled up to whole units."""
    unit = unit_for(k)
    return -(-k >> len(unit)) << len(unit)


def widths(size: int) -> list[int]:
    """How many of C channels the lattice may hold at once, most first."""
    return [size, *(width for width in (32, 16, 8, 4) if width < size)]


def bilateral_lattice(
    image: NDArray[np.uint8],
    params: CRFParams,
    team: ThreadTeam,
    meanwhile: Callable[[], object] | None = None,
) -> Lattice:
    """The lattice over (x, y, b, g, r), scaled so that splat · blur · slice is its weight × the normalized kernel.

    meanwhile  done beside the one long step that is a single thread's
    """
    height, width, _ = image.shape
    features = np.empty((height, width, 5), np.float32)
    features[:, :, 0] = np.arange(width, dtype=np.float32) / np.float32(params.bilateral_sxy)
    features[:, :, 1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(params.bilateral_sxy)
    # The kernel does not mind the order of the colors, the lattice does.
    np.divide(image[:, :, ::-1], np.float32(params.bilateral_srgb), out=features[:, :, 2:])
    built = build(features.reshape(-1, 5), team, meanwhile)
    values, scale = np.zeros(built.vertices + 1, np.float32), np.empty(height * width, np.float32)
    team.map_ranges(masses, built, values, parts=team.shares(0, built.vertices))
    blur(built, values, 1, ONE, 0, 1)
    compat = np.float32(params.bilateral_compat)
    team.map_ranges(normalize, built, values, compat, scale, parts=team.shares(0, height * width))
    team.map_ranges(scale_edges, built, scale, parts=team.shares(0, built.point.size))
    return built


class Unary(NamedTuple):
    logs: Floats  # flat [N, K]   log-probabilities, and a unit more to read beyond the end
    pad: Floats  # [C]   0 for a label, NEVER for what fills the row
    k: int


def log_rows(probabilities: Floats, floor: float) -> Unary:
    """Maps [K, H, W] to rows of logarithms; none is of less than floor."""
    k, size = len(probabilities), row_size(len(probabilities))
    maps = np.ascontiguousarray(probabilities).reshape(k, -1)
    logs = aligned(maps.shape[1] * k + size)
    enter(maps, np.float32(floor), logs)
    np.log(logs[: maps.size], out=logs[: maps.size])
    pad = aligned(size)
    pad[k:] = NEVER
    return Unary(logs, pad, k)


@compiled
def enter(maps, floor, rows):  # type: ignore[no-untyped-def]
    """Maps [K, N] to rows [N, K]. Few pixels at a time: whole cache lines."""
    k, n = maps.shape
    for begin in range(0, n, 16):
        for label in range(k):
            for p in range(begin, min(begin + 16, n)):
                rows[p * k + label] = max(maps[label, p], floor)


class Field(NamedTuple):
    unary: Unary
    rows: Floats  # flat            marginals, old and new, with finite values around them
    values: Floats  # flat [M+1, channels]   the bilateral lattice; row M stays zero
    bilateral: Lattice
    gaussian: Taps
    compat: np.float32  # of the Gaussian; the bilateral lattice holds its own
    size: int  # C
    channels: int  # that the lattice holds at once
    unit: tuple[int, ...]


@compiled
def softmax(logits, start, rows, row, size, unit):  # type: ignore[no-untyped-def]
    """The logarithms logits[start:start+size] to probabilities rows[row:row+size]; logits are overwritten."""
    width = 1 << len(unit)
    top = load(logits, start, unit)
    for b in range(width, size, width):
        top = maximum(top, load(logits, start + b, unit))
    shift = fill(-highest(top), unit)
    mass = zero = fill(np.float32(0), unit)
    for b in range(0, size, width):
        e = exp(add(load(logits, start + b, unit), shift))
        mass = add(mass, e)
        store(logits, start + b, e)
    scale = np.float32(1) / total(mass)
    for b in range(0, size, width):
        store(rows, row + b, fma(scale, load(logits, start + b, unit), zero))


@compiled
def log_probability(unary, p, b, unit):  # type: ignore[no-untyped-def]
    """One unit of a pixel's row; what lies beyond its labels is the next pixel's, and made NEVER."""
    return add(load(unary.logs, p * unary.k + b, unit), load(unary.pad, b, unit))


@compiled
def begin(field, target, start, stop):  # type: ignore[no-untyped-def]
    """The marginals of pixels start:stop before any message: the softmax of the unary."""
    logits, size = np.empty(field.size, np.float32), field.size
    for p in range(start, stop):
        for b in range(0, size, 1 << len(field.unit)):
            store(logits, b, log_probability(field.unary, p, b, field.unit))
        softmax(logits, 0, field.rows, (target + p) * size, size, field.unit)


@compiled
def smooth(field, source, low, band, messages):  # type: ignore[no-untyped-def]
    """The Gaussian message of one band of image rows, channels low on, to messages [the band's rows, W, channels]."""
    gaussian, rows, size, channels, unit = field.gaussian, field.rows, field.size, field.channels, field.unit
    first, weights, steps, width = gaussian.first, gaussian.weights, gaussian.steps, gaussian.width
    top, below = at(gaussian.bands, band), at(gaussian.bands, band + 1)
    period, zero = (below - top + BAND - 1) // BAND, fill(np.float32(0), unit)
    down, across = period * width * size, period * width * channels
    for p in range(top * width, (top + period) * width):
        w = at(gaussian.row, p // width) * width + p % width
        begin, end = np.int64(at(first, w)), np.int64(at(first, w + 1))
        for b in range(0, channels, 1 << len(unit)):
            a0 = a1 = a2 = a3 = zero
            old, new = (source + p) * size + low + b, (p - top * width) * channels + b
            if below - top == 1:  # four sums at once: each addition waits for the one before it
                for t in range(begin, end, 4):
                    a0 = fma(at(weights, t), load(rows, old + at(steps, t) * size, unit), a0)
                    a1 = fma(at(weights, t + 1), load(rows, old + at(steps, t + 1) * size, unit), a1)
                    a2 = fma(at(weights, t + 2), load(rows, old + at(steps, t + 2) * size, unit), a2)
                    a3 = fma(at(weights, t + 3), load(rows, old + at(steps, t + 3) * size, unit), a3)
                store(messages, new, add(add(a0, a1), add(a2, a3)))
            else:  # one sum for each of BAND rows, a period apart: a weight is fetched once for all
                for t in range(begin, end):
                    there = old + at(steps, t) * size
                    a0 = fma(at(weights, t), load(rows, there, unit), a0)
                    a1 = fma(at(weights, t), load(rows, there + down, unit), a1)
                    a2 = fma(at(weights, t), load(rows, there + 2 * down, unit), a2)
                    a3 = fma(at(weights, t), load(rows, there + 3 * down, unit), a3)
                store(messages, new, a0)
                store(messages, new + across, a1)
                store(messages, new + 2 * across, a2)
                store(messages, new + 3 * across, a3)


@compiled
def update(field, source, target, low, start, stop):  # type: ignore[no-untyped-def]
    """Channels low on, as many as the lattice holds, of bands start:stop: from the old marginals and the lattice.

    They become marginals where the lattice holds all channels, else logarithms that finish() turns. Old and new lie in
    one buffer, from pixel source and from pixel target on. Where they overlap, the order of the walk makes sure that no
    old channel is overwritten before its last neighbor has read it.
    """
    rows, values, size, channels, unit = field.rows, field.values, field.size, field.channels, field.unit
    vertex, weight = field.bilateral.vertex, field.bilateral.weight
    bands, width = field.gaussian.bands, field.gaussian.width
    n = vertex.shape[0]
    logits = np.empty(field.gaussian.tallest * width * channels, np.float32)
    band, direction = (start, 1) if target < source else (stop - 1, -1)
    for _ in range(stop - start):
        smooth(field, source, low, band, logits)
        own = 0
        for p in range(at(bands, band) * width, at(bands, band + 1) * width):
            ahead = min(p + AHEAD // CORNERS, n - 1) * CORNERS
            for e in range(ahead, ahead + CORNERS):
                prefetch(values, np.int64(at(vertex, e)) * channels, unit)
            for b in range(0, channels, 1 << len(unit)):
                a = log_probability(field.unary, p, low + b, unit)
                a = fma(field.compat, load(logits, own + b, unit), a)
                for e in range(p * CORNERS, (p + 1) * CORNERS):
                    a = fma(at(weight, e), load(values, at(vertex, e) * channels + b, unit), a)
                store(logits, own + b, a)
            new = (target + p) * size
            if channels == size:
                softmax(logits, own, rows, new, size, unit)
            else:
                for b in range(0, channels, 1 << len(unit)):
                    store(rows, new + low + b, load(logits, own + b, unit))
            own += channels
        band += direction


@compiled
def finish(field, target, start, stop):  # type: ignore[no-untyped-def]
    """The logarithms of pixels start:stop become marginals."""
    for p in range(start, stop):
        row = (target + p) * field.size
        softmax(field.rows, row, field.rows, row, field.size, field.unit)


@compiled
def iterate(field, source, target):  # type: ignore[no-untyped-def]
    """A whole iteration in one call: Python's lock is waited for once, not between any two steps."""
    lattice, values, size, unit, channels = field.bilateral, field.values, field.size, field.unit, field.channels
    for low in range(0, size, channels):
        splat(field.rows, source, lattice, values, size, channels, unit, low, 0, lattice.first.size - 1)
        blur(lattice, values, channels, unit, 0, channels)
        update(field, source, target, low, 0, field.gaussian.bands.size - 1)
    if channels < size:
        finish(field, target, 0, lattice.vertex.shape[0])


def iterate_together(team: ThreadTeam, field: Field, source: int, target: int) -> None:
    """The same on threads. Each fills some of the vertices, blurs some of the channels, finishes some of the pixels.

    The same arithmetic in the same order for every row: the threads change nothing.
    """
    lattice, values, size, unit, channels = field.bilateral, field.values, field.size, field.unit, field.channels
    vertices = np.searchsorted(lattice.first, team.shares(0, lattice.point.size)).tolist()  # of as many edges each
    bands, blurred, parts = team.shares(0, field.gaussian.bands.size - 1), unit, [0, channels]
    if channels >= 8 * team.threads:
        quantum = 16 if channels >= 16 * team.threads else 8
        blurred, parts = unit_for(quantum), [quantum * part for part in team.shares(0, channels // quantum)]
    for low in range(0, size, channels):
        team.map_ranges(splat, field.rows, source, lattice, values, size, channels, unit, low, parts=vertices)
        team.map_ranges(blur, lattice, values, channels, blurred, parts=parts)
        team.map_ranges(update, field, source, target, low, parts=bands)
    if channels < size:
        team.map_ranges(finish, field, target, parts=team.shares(0, len(lattice.vertex)))


@compiled
def leave(rows, base, size, k, unit, labels, marginals, start, stop):  # type: ignore[no-untyped-def]
    """Rows [N, C] from pixel base on to the best label uint8 [N], and to maps [K, N] if marginals has room for them."""
    width = 1 << len(unit)
    flat = np.empty(16 * size, np.float32)
    for begin in range(start, stop, 16):
        end = min(begin + 16, stop)
        for p in range(begin, end):
            row = (base + p) * size
            top = load(rows, row, unit)
            for b in range(0, size, width):
                here = load(rows, row + b, unit)
                store(flat, (p - begin) * size + b, here)
                top = maximum(top, here)
            best = highest(top)
            for b in range(size - width, -1, -width):
                label = first_lane(load(rows, row + b, unit), best)
                if label < width:
                    labels[p] = b + label
        if marginals.shape[1] > 0:
            for label in range(k):
                for p in range(begin, end):
                    marginals[label, p] = flat[(p - begin) * size + label]


def infer(
    unary: Unary,
    bilateral: Lattice,
    gaussian: Taps,
    params: CRFParams,
    team: ThreadTeam,
    *,
    marginals: bool,
    channels: int | None = None,
    check: Callable[[], None] | None = None,
) -> tuple[NDArray[np.uint8], Floats]:
    """Mean field with Potts labels.

    unary        log_rows of K maps
    bilateral, gaussian   the two kernels
    channels     one of widths(C): how many the lattice holds at once; None: as many as there is room for
    check        called between iterations; what it raises ends the work
    returns      uint8 [N] labels, float32 [K, N] marginals (or [K, 0] where they are not asked for)
    """
    n, k, size = len(bilateral.vertex), unary.k, row_size(unary.k)
    if channels is None:
        room = ROOMY * n * max(size, 32) / max(1, bilateral.vertices)
        channels = next((width for width in widths(size) if width <= room), widths(size)[-1])
    unit = FOUR if channels == 1 << len(FOUR) else unit_for(channels)
    # A neighbor is at most `margin` pixels away. One thread writes the new rows that far before (then after) the old
    # ones, over rows that are no longer needed: one buffer does for both. Several threads need two.
    margin = gaussian.radius * (gaussian.width + 1)
    low, high = margin, 2 * margin if team.threads == 1 else 2 * margin + n
    rows = aligned((high + n + margin) * size)
    values = aligned((bilateral.vertices + 1) * channels)
    field = Field(unary, rows, values, bilateral, gaussian, np.float32(params.gaussian_compat), size, channels, unit)
    pixels, step = team.shares(0, n), iterate if team.threads == 1 else partial(iterate_together, team)
    team.map_ranges(begin, field, high, parts=pixels)
    source, target = high, low
    for _ in range(params.iterations):
        if check:
            check()
        step(field, source, target)
        source, target = target, source
    del values, field
    labels = np.empty(n, np.uint8)
    maps = np.empty((k, n if marginals else 0), np.float32)
    team.map_ranges(leave, rows, source, size, k, unit, labels, maps, parts=pixels)
    return labels, maps
