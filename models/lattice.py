"""The permutohedral lattice: Gaussian filtering of many channels over points with a few features.

Knows nothing of probabilities, labels or photos: feature vectors and rows of floats, in and out.

Source: Adams, Baek, Davis, "Fast high-dimensional filtering using the permutohedral lattice" (2010). Points are
spread ("splat") over the corners of the simplex they lie in, the corners are blurred along the d + 1 lattice
directions, and the points read back ("slice") from the same corners with the same weights.

N points, d features, M lattice vertices in use, C channels in rows of whole units (see lanes.py). Three choices make
it quick: splat is a gather over each vertex's own points, so each vertex is written once and threads never meet; blur
walks each line of vertices once and in place, its last values in registers, and skips vertices without neighbors on
that line; a key is one integer, in which a step to a neighbor is one addition.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import TesseraError
from models.lanes import add, at, compiled, fill, fma, load, prefetch, store

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]


AHEAD = 16  # rows are called into the cache so many reads before their use


class LatticeError(TesseraError):
    """Features whose lattice has too many steps to count."""


class Lattice(NamedTuple):
    vertex: Indices  # [N, d+1]        the corners of each point's simplex
    weight: Floats  # [N, d+1]        how much of the point each corner gets; sums to 1 until scaled
    first: Indices  # [M+1]           vertex v has the edges first[v]:first[v+1]
    point: Indices  # [N·(d+1)]       the point at the other end of each edge
    share: Floats  # [N·(d+1)]        and its weight
    lines: Indices  # [L]             vertices in the order of their lines, M after each line's end
    axes: Indices  # [d+2]            direction a has lines[axes[a]:axes[a+1]]

    @property
    def vertices(self) -> int:
        return self.first.size - 1


def build(features: Floats) -> Lattice:
    """The lattice of the points float32 [N, d], in units of the wished standard deviations."""
    bits = 62 // features.shape[1]
    vertex, weight, keys, table, ids = embed(features, bits)
    if keys.size == 0:
        raise LatticeError(
            "the standard deviations are too small for the range of positions and colors; make them larger"
        )
    first, point, share = edges(vertex, weight, keys.size)
    lines, axes = trace(keys, table, ids, features.shape[1], bits)
    return Lattice(vertex, weight, first, point, share, lines, axes)


@compiled
def slot(key, table):  # type: ignore[no-untyped-def]
    """Where key is in the open hash table, or the free place where it belongs. Zero means free."""
    mask = table.size - 1
    found = np.int64(((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & np.uint64(mask))
    while table[found] != key and table[found] != 0:
        found = (found + 1) & mask
    return found


@compiled
def embed(features, bits):  # type: ignore[no-untyped-def]
    """Each point's simplex: its corners, its barycentric weights, and the hash table of all corners.

    A corner is d + 1 integers that sum to zero; the first d, shifted to be positive, are packed into one key, each in
    its number of bits. No keys come back where an integer does not fit.
    """
    n, d = features.shape
    vertex = np.empty((n, d + 1), np.int32)
    weight = np.empty((n, d + 1), np.float32)
    size = 1024
    while size < 2 * n:
        size *= 2
    table, ids = np.zeros(size, np.uint64), np.empty(size, np.int32)
    keys, count = np.empty(size // 2 + d + 1, np.uint64), 0

    unit = np.zeros(d + 1, np.uint64)  # one step of each coordinate; the last is not in the key
    for i in range(d):
        unit[i] = np.uint64(1) << np.uint64(bits * i)
    ones = unit.sum()
    zero = ones << np.uint64(bits - 1)
    limit = (1 << (bits - 1)) - 2 * (d + 1)
    scale = np.empty(d, np.float32)
    for i in range(d):
        scale[i] = np.sqrt(2.0 / 3.0) * (d + 1) / np.sqrt((i + 1.0) * (i + 2.0))

    place = np.empty(d + 1, np.float32)  # the point on the plane of coordinates that sum to zero
    near = np.empty(d + 1, np.int64)  # the closest lattice point whose coordinates are multiples of d + 1
    rank = np.empty(d + 1, np.int64)  # position of each coordinate when the differences are sorted, largest first
    of_rank = np.empty(d + 1, np.int64)
    bary = np.empty(d + 2, np.float32)
    last_key, last_order = np.uint64(0), np.int64(-1)
    for p in range(n):
        above = np.float32(0)
        for i in range(d, 0, -1):
            f = features[p, i - 1] * scale[i - 1]
            place[i] = above - np.float32(i) * f
            above += f
        place[0] = above
        excess = np.int64(0)
        for i in range(d + 1):
            whole = np.int64(np.rint(place[i] * np.float32(1.0 / (d + 1))))
            near[i] = whole * (d + 1)
            if abs(near[i]) > limit:
                return vertex, weight, keys[:0], table, ids
            excess += whole
            rank[i] = 0
        for i in range(d):
            for j in range(i + 1, d + 1):
                if place[i] - np.float32(near[i]) < place[j] - np.float32(near[j]):
                    rank[i] += 1
                else:
                    rank[j] += 1
        key, order = zero, np.int64(0)
        bary[:] = 0
        for i in range(d + 1):
            rank[i] += excess  # rounding may leave the plane; the largest (or smallest) differences step back
            if rank[i] < 0:
                rank[i] += d + 1
                near[i] += d + 1
            elif rank[i] > d:
                rank[i] -= d + 1
                near[i] -= d + 1
            of_rank[rank[i]] = i
            key += np.uint64(near[i]) * unit[i]
            order = order * (d + 1) + rank[i]
            difference = (place[i] - np.float32(near[i])) * np.float32(1.0 / (d + 1))
            bary[d - rank[i]] += difference
            bary[d + 1 - rank[i]] -= difference
        bary[0] += np.float32(1) + bary[d + 1]

        if key == last_key and order == last_order:  # in a smooth region the next pixel shares the simplex
            for r in range(d + 1):
                vertex[p, r] = vertex[p - 1, r]
                weight[p, r] = bary[r]
            continue
        last_key, last_order = key, order
        for r in range(d + 1):
            found = slot(key, table)
            if table[found] == 0:
                table[found], ids[found], keys[count] = key, count, key
                count += 1
            vertex[p, r] = ids[found]
            weight[p, r] = bary[r]
            key += ones - np.uint64(d + 1) * unit[of_rank[d - r]]
        if 2 * count > table.size:
            table, ids = np.zeros(2 * table.size, np.uint64), np.empty(2 * table.size, np.int32)
            keys = np.append(keys[:count], np.empty(table.size // 2 + d + 1 - count, np.uint64))
            for v in range(count):
                found = slot(keys[v], table)
                table[found], ids[found] = keys[v], v
    return vertex, weight, keys[:count], table, ids


@compiled
def edges(vertex, weight, m):  # type: ignore[no-untyped-def]
    """The same edges seen from the vertices, by counting: first [M+1], point [N·(d+1)], share [N·(d+1)]."""
    n, corners = vertex.shape
    first = np.zeros(m + 1, np.int32)
    for p in range(n):
        for r in range(corners):
            first[vertex[p, r]] += 1
    begin = np.int32(0)
    for v in range(m + 1):
        begin, first[v] = begin + first[v], begin
    point, share = np.empty(vertex.size, np.int32), np.empty(vertex.size, np.float32)
    for p in range(n):
        for r in range(corners):
            found = first[vertex[p, r]]
            point[found], share[found] = p, weight[p, r]
            first[vertex[p, r]] = found + 1
    for v in range(m, 0, -1):  # filling moved each start to its end, which is the next one's start
        first[v] = first[v - 1]
    first[0] = 0
    return first, point, share


@compiled
def trace(keys, table, ids, d, bits):  # type: ignore[no-untyped-def]
    """Follows the lines of each direction: lines [L], axes [d+2]. A vertex alone on its line is left out."""
    m = keys.size
    ones = np.uint64(0)
    for i in range(d):
        ones += np.uint64(1) << np.uint64(bits * i)
    axes = np.zeros(d + 2, np.int32)
    lines = np.empty(2 * m, np.int32)
    after, is_first, n = np.empty(m, np.int32), np.empty(m, np.bool_), 0
    for axis in range(d + 1):
        step = ones
        if axis < d:
            step -= np.uint64(d + 1) << np.uint64(bits * axis)
        is_first[:] = True
        for v in range(m):
            key = keys[v] + step
            found = slot(key, table)
            after[v] = ids[found] if table[found] == key else -1
            if after[v] >= 0:
                is_first[after[v]] = False
        if n + 2 * m > lines.size:
            lines = np.append(lines, np.empty(max(lines.size, 2 * m), np.int32))
        for start in range(m):
            if is_first[start] and after[start] >= 0:
                v = start
                while v >= 0:
                    lines[n] = v
                    n += 1
                    v = after[v]
                lines[n] = m
                n += 1
        axes[axis + 1] = n
    return lines[:n].copy(), axes


@compiled
def splat(rows, base, lattice, values, size, unit, start, stop):  # type: ignore[no-untyped-def]
    """Vertices start:stop gather their points: rows [N, C] from row base on to values [M+1, C]; flat, C = size."""
    last = lattice.point.size - 1
    for v in range(start, stop):
        for b in range(0, size, 1 << len(unit)):
            a = fill(np.float32(0), unit)
            for e in range(at(lattice.first, v), at(lattice.first, v + 1)):
                prefetch(rows, (base + at(lattice.point, min(e + AHEAD, last))) * size + b, unit)
                a = fma(at(lattice.share, e), load(rows, (base + at(lattice.point, e)) * size + b, unit), a)
            store(values, v * size + b, a)


@compiled
def blur(lattice, values, size, unit, start, stop):  # type: ignore[no-untyped-def]
    """values [M+1, C] gain half of both neighbors along the lines start:stop; row M is zero and ends each line."""
    lines, m = lattice.lines, lattice.first.size - 1
    half, one, none = np.float32(0.5), np.float32(1), np.float32(0)
    zero = fill(none, unit)
    for b in range(0, size, 1 << len(unit)):
        before = here = zero
        v = m  # a line's end comes before the first line, too
        for i in range(start, stop):
            u = np.int64(at(lines, i))
            after = load(values, u * size + b, unit)
            keep = one if v < m else none  # the row of zeros stays zero, without a branch to mispredict
            store(values, v * size + b, fma(keep, fma(half, add(before, after), here), zero))
            before, here, v = here, after, u
