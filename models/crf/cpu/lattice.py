"""The permutohedral lattice: Gaussian filtering of many channels over points with a few features.

Knows nothing of probabilities, labels or photos: feature vectors and rows of floats, in and out.

Source: Adams, Baek, Davis, "Fast high-dimensional filtering using the permutohedral lattice" (2010). Points are
spread ("splat") over the corners of the simplex they lie in, the corners are blurred along the d + 1 lattice
directions, and the points read back ("slice") from the same corners with the same weights.

N points, d features, M lattice vertices in use, C channels in rows of whole units (see simd.py). Three choices make
it quick: splat is a gather over each vertex's own points, so each vertex is written once and threads never meet; blur
walks each line of vertices once and in place, its last values in registers, and skips vertices without neighbors on
that line; a key is one integer, in which a step to a neighbor is one addition. Every sum is made in the order of the
points: neither the numbers of the vertices nor the number of threads changes a result.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import hardware
from models.crf.cpu.jit import compiled
from models.crf.cpu.simd import ONE, add, at, fill, fma, load, prefetch, store
from models.crf.cpu.simplex import axis_scales, embed, key_steps
from models.crf.params import TOO_FINE, CRFError
from models.parallel import ThreadTeam

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]

LARGE = 2  # vertices a point from which on the tables are worth giving back: noise has six, photos up to two
AHEAD = 48  # rows are called into the cache so many reads before their use


class Lattice(NamedTuple):
    vertex: Indices  # [N, d+1]        the corners of each point's simplex
    weight: Floats  # [N, d+1]        how much of the point each corner gets; sums to 1 until scaled
    first: Indices  # [M+1]           vertex v has the edges first[v]:first[v+1]
    point: Indices  # [N·(d+1)]       the point at the other end of each edge
    share: Floats  # [N·(d+1)]        and its weight
    lines: tuple[Indices, ...]  # of each direction: vertices in the order of their lines, M after each line's end

    @property
    def vertices(self) -> int:
        return self.first.size - 1


def aligned(size: int) -> Floats:
    """Zeros float32 [size] that start on a cache line, so that few rows straddle two."""
    raw = np.zeros(size + 16, np.float32)
    skip = -(raw.ctypes.data // 4) % 16
    return raw[skip : skip + size]


def build(features: Floats, team: ThreadTeam, meanwhile: Callable[[], object] | None = None) -> Lattice:
    """The lattice of the points float32 [N, d], in units of the wished standard deviations. Raises CRFError.

    meanwhile  done beside the one long step that is a single thread's
    """
    n, d = features.shape
    bits = 62 // d
    keys, orders = np.empty(n, np.uint64), np.empty(n, np.int32)
    weight = np.empty((n, d + 1), np.float32)
    if not all(team.map_ranges(embed, features, axis_scales(d), bits, keys, orders, weight, parts=team.shares(0, n))):
        raise CRFError(TOO_FINE)
    (vertex, used, table), *_ = team.run(partial(collect, keys, orders, d, bits), *([meanwhile] if meanwhile else []))
    seen_from_vertices = partial(edges, vertex, weight, used.size)
    (first, point, share), *lines = team.run(
        seen_from_vertices, *(partial(trace, used, table, axis, d, bits) for axis in range(d + 1))
    )
    if used.size > LARGE * n:
        del used, table
        hardware.release_memory()  # 1 ms: glibc keeps the tables' memory where later arrays lie above it
    return Lattice(vertex, weight, first, point, share, tuple(lines))


@compiled
def home(key, table):  # type: ignore[no-untyped-def]
    """Where the search for a key begins: the bits of the key, spread out, and of them those in the middle."""
    mask = np.uint64(table.size // 2 - 1)
    return 2 * np.int64(((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask)


@compiled
def slot(key, table):  # type: ignore[no-untyped-def]
    """Where key is in the table, or the free place where it belongs.

    An open hash table of pairs, key and number, so that both come with one reach into memory. Key zero means free.
    """
    found = home(key, table)
    while table[found] != key and table[found] != 0:
        found = (found + 2) & (table.size - 1)
    return found


@compiled
def collect(keys, orders, d, bits):  # type: ignore[no-untyped-def]
    """The vertices in use, numbered as they are met: numbers int32 [N, d+1], keys uint64 [M], their hash table."""
    n = keys.size
    size = 1024
    while size < 2 * n:
        size *= 2
    table = np.zeros(2 * size, np.uint64)
    own, count = np.empty(size, np.uint64), 0
    along, ones = key_steps(d, bits)
    of_rank = np.zeros(d + 1, np.int64)
    vertex = np.empty((n, d + 1), np.int32)
    number = np.empty(d + 1, np.int32)
    last_key, last_order = np.uint64(0), np.int32(-1)
    for p in range(n):
        key, order = keys[p], orders[p]
        if key != last_key or order != last_order:  # in a smooth region the next pixel shares the simplex
            last_key, last_order = key, order
            for i in range(d, -1, -1):
                of_rank[order & 7] = i
                order >>= 3
            for r in range(d + 1):
                found = slot(key, table)
                if table[found] == 0:
                    table[found], table[found + 1], own[count] = key, np.uint64(count), key
                    count += 1
                number[r] = np.int32(table[found + 1])
                key += ones - along[of_rank[d - r]]
            if 3 * size < 4 * (count + d + 1):
                size *= 2
                table = np.zeros(2 * size, np.uint64)
                own = np.append(own[:count], np.empty(size - count, np.uint64))
                for v in range(count):
                    found = slot(own[v], table)
                    table[found], table[found + 1] = own[v], np.uint64(v)
        for r in range(d + 1):
            vertex[p, r] = number[r]
    return vertex, own[:count].copy(), table


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
def trace(keys, table, axis, d, bits):  # type: ignore[no-untyped-def]
    """Follows the lines of one direction: lines [L]. A vertex alone on its line is left out."""
    m = keys.size
    along, ones = key_steps(d, bits)
    step = ones - along[axis]
    after, is_first = np.empty(m, np.int32), np.ones(m, np.bool_)
    for v in range(m):
        prefetch(table, home(keys[min(v + AHEAD, m - 1)] + step, table), ONE)
        key = keys[v] + step
        found = slot(key, table)
        after[v] = -1
        if table[found] == key:
            after[v] = np.int32(table[found + 1])
            is_first[after[v]] = False
    length = 0
    for v in range(m):
        if after[v] >= 0:
            length += 3 if is_first[v] else 1  # a line is its first vertex, one for each step, and the end
    lines, n = np.empty(length, np.int32), 0
    for start in range(m):
        if is_first[start] and after[start] >= 0:
            v = start
            while v >= 0:
                lines[n] = v
                n += 1
                v = after[v]
            lines[n] = m
            n += 1
    return lines


@compiled
def normalize(lattice, values, compat, scale, start, stop):  # type: ignore[no-untyped-def]
    """Scales the weights of points start:stop so that splat · blur · slice is compat · D^-½ K D^-½.

    D are the row sums of the kernel K: half of them in splat, half in slice. values [M+1] has passed through blur.
    """
    vertex, weight = lattice.vertex, lattice.weight
    for p in range(start, stop):
        a = np.float32(0)
        for r in range(vertex.shape[1]):
            a += weight[p, r] * values[vertex[p, r]]
        scale[p] = np.sqrt(compat / (a + np.float32(1e-20)))
        for r in range(vertex.shape[1]):
            weight[p, r] *= scale[p]


@compiled
def masses(lattice, values, start, stop):  # type: ignore[no-untyped-def]
    """The weight that vertices start:stop have been given, to values [M+1]."""
    for v in range(start, stop):
        a = np.float32(0)
        for e in range(lattice.first[v], lattice.first[v + 1]):
            a += lattice.share[e]
        values[v] = a


@compiled
def scale_edges(lattice, scale, start, stop):  # type: ignore[no-untyped-def]
    for e in range(start, stop):
        lattice.share[e] *= scale[lattice.point[e]]


@compiled
def splat(rows, base, lattice, values, size, channels, unit, low, start, stop):  # type: ignore[no-untyped-def]
    """Vertices start:stop gather their points: channels low on of rows become those of values.

    rows [N, size], from row base on, and values [M+1, channels] are flat.
    """
    last = lattice.point.size - 1
    for v in range(start, stop):
        for b in range(0, channels, 1 << len(unit)):
            a = fill(np.float32(0), unit)
            for e in range(at(lattice.first, v), at(lattice.first, v + 1)):
                prefetch(rows, (base + at(lattice.point, min(e + AHEAD, last))) * size + low + b, unit)
                a = fma(at(lattice.share, e), load(rows, (base + at(lattice.point, e)) * size + low + b, unit), a)
            store(values, v * channels + b, a)


@compiled
def blur(lattice, values, channels, unit, start, stop):  # type: ignore[no-untyped-def]
    """values [M+1, channels] gain half of both neighbors, direction by direction; row M is zero and ends each line.

    Only channels start:stop: threads that have other channels never meet.
    """
    m = lattice.first.size - 1
    half, one, none = np.float32(0.5), np.float32(1), np.float32(0)
    zero = fill(none, unit)
    for lines in lattice.lines:
        for b in range(start, stop, 1 << len(unit)):
            before = here = zero
            v, last = m, lines.size - 1  # a line's end comes before the first line, too
            for i in range(lines.size):
                u = np.int64(at(lines, i))
                prefetch(values, np.int64(at(lines, min(i + AHEAD, last))) * channels + b, unit)
                after = load(values, u * channels + b, unit)
                keep = one if v < m else none  # the row of zeros stays zero, without a branch to mispredict
                store(values, v * channels + b, fma(keep, fma(half, add(before, after), here), zero))
                before, here, v = here, after, u
