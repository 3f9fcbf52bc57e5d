"""Where points lie on the permutohedral lattice: the simplex around each, and how near it is to each corner.

Knows nothing of which lattice points are in use: lattice.py collects them.

A lattice point of d features is d + 1 integers that sum to zero and are equal modulo d + 1. Source: Adams, Baek, Davis,
"Fast high-dimensional filtering using the permutohedral lattice" (2010). Sixteen points at a time: every quantity is
one unit of sixteen floats (see simd.py), and the ranks that sort a point's coordinates are counted by comparing all
pairs instead of by branches.
"""

import numpy as np
from numpy.typing import NDArray

from models.crf.cpu.jit import compiled
from models.crf.cpu.simd import UNITS, add, fill, fma, less, load, maximum, nearest, store, subtract, times, where

UNIT = UNITS[1]
WIDTH = 1 << len(UNIT)


def axis_scales(d: int) -> NDArray[np.float32]:
    """What each of d features is multiplied by, so that the lattice's blur has a standard deviation of one."""
    i = np.arange(d)
    return np.asarray(np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1.0) * (i + 2.0)), np.float32)


@compiled
def key_steps(d, bits):  # type: ignore[no-untyped-def]
    """Differences of keys: d + 1 along each coordinate, [d + 1], the last of which is in no key; and one along all."""
    along, ones = np.zeros(d + 1, np.uint64), np.uint64(0)
    for i in range(d):
        along[i] = np.uint64(d + 1) << np.uint64(bits * i)
        ones += np.uint64(1) << np.uint64(bits * i)
    return along, ones


@compiled
def embed(features, scale, bits, keys, orders, weights, start, stop):  # type: ignore[no-untyped-def]
    """Points start:stop of features [N, d]: the simplex around each, by its nearest corner and an order of steps.

    scale    float32 [d]     axis_scales
    keys     uint64 [N]      gets that corner: its first d integers, shifted to be positive, `bits` of each
    orders   int32 [N]       gets the rank of each coordinate's distance from it, as octal digits, the first leading
    weights  float32 [N, d+1]   gets the barycentric weight of corner r, which lies r steps from the nearest one
    returns  whether every integer fits into its bits
    """
    d = features.shape[1]
    base, one, none = np.float32(d + 1), np.float32(1), np.float32(0)
    part = np.float32(1.0 / (d + 1))
    along, ones = key_steps(d, bits)
    zero = ones << np.uint64(bits - 1)
    limit = np.float32(((1 << (bits - 1)) - 2 * (d + 1)) // (d + 1))

    # Scratch: one row of WIDTH floats for each coordinate, flat.
    place = np.zeros((d + 1) * WIDTH, np.float32)
    whole = np.zeros((d + 1) * WIDTH, np.float32)
    rank = np.zeros((d + 1) * WIDTH, np.float32)
    distance = np.zeros((d + 1) * WIDTH, np.float32)
    by_rank = np.zeros((d + 2) * WIDTH, np.float32)
    share = np.zeros((d + 1) * WIDTH, np.float32)
    order_of = np.zeros(WIDTH, np.float32)
    largest = np.zeros(WIDTH, np.float32)
    for begin in range(start, stop, WIDTH):
        count = min(WIDTH, stop - begin)
        for lane in range(count):
            for i in range(d):
                place[(i + 1) * WIDTH + lane] = features[begin + lane, i] * scale[i]
        above = fill(none, UNIT)
        for i in range(d, 0, -1):  # onto the plane of coordinates that sum to zero
            f = load(place, i * WIDTH, UNIT)
            store(place, i * WIDTH, subtract(above, times(np.float32(i), f)))
            above = add(above, f)
        store(place, 0, above)

        excess = worst = fill(none, UNIT)
        for i in range(d + 1):
            at = i * WIDTH
            w = nearest(times(part, load(place, at, UNIT)))
            worst = maximum(worst, maximum(w, times(-one, w)))
            excess = add(excess, w)
            store(whole, at, w)
            store(distance, at, fma(-base, w, load(place, at, UNIT)))
        store(largest, 0, worst)
        for i in range(d + 1):  # rounding may leave the plane: the ranks turn by as much as the sum is off
            r = excess
            for j in range(d + 1):
                a, b = load(distance, i * WIDTH, UNIT), load(distance, j * WIDTH, UNIT)
                if j > i:
                    r = add(r, less(a, b))
                elif j < i:
                    r = add(r, subtract(fill(one, UNIT), less(b, a)))
            store(rank, i * WIDTH, r)
        digits = fill(none, UNIT)
        for i in range(d + 1):
            at = i * WIDTH
            r, w = load(rank, at, UNIT), load(whole, at, UNIT)
            turn = subtract(less(r, fill(none, UNIT)), less(fill(np.float32(d), UNIT), r))
            r, w = fma(base, turn, r), add(w, turn)
            store(rank, at, r)
            store(whole, at, w)
            store(distance, at, times(part, fma(-base, w, load(place, at, UNIT))))
            digits = fma(np.float32(8), digits, r)
        store(order_of, 0, digits)
        for r in range(d + 1):
            found = fill(none, UNIT)
            for i in range(d + 1):
                found = where(load(rank, i * WIDTH, UNIT), np.float32(r), load(distance, i * WIDTH, UNIT), found)
            store(by_rank, r * WIDTH, found)
        for r in range(1, d + 1):
            store(
                share,
                r * WIDTH,
                subtract(load(by_rank, (d - r) * WIDTH, UNIT), load(by_rank, (d + 1 - r) * WIDTH, UNIT)),
            )
        store(share, 0, add(load(by_rank, d * WIDTH, UNIT), subtract(fill(one, UNIT), load(by_rank, 0, UNIT))))

        for lane in range(count):
            if not largest[lane] <= limit:
                return False
            key = zero
            for i in range(d):
                key += np.uint64(np.int64(whole[i * WIDTH + lane])) * along[i]
            keys[begin + lane] = key
            orders[begin + lane] = np.int32(order_of[lane])
            for r in range(d + 1):
                weights[begin + lane, r] = share[r * WIDTH + lane]
    return True
