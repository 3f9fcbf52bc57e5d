"""A region with holes as one ring, for tools whose polygons have none: every hole hangs on a bridge without width.

A bridge goes from a hole's left upper corner to the left, inside of the region, to the next ring, and back: it encloses
nothing, so that the ring's area is the region's, and a point lies inside of it where it lies in the region, whether
crossings are counted or turns.

Knows nothing of label maps, images, requests.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from models.types import Array


def bridged(rings: Sequence[Array]) -> Array:
    """One ring [n, 2], not closed, of a region's rings along pixel edges.

    rings  [n, 2] each, x, y, closed: the outline, then holes, which turn the other way (`polygons.Region`)
    """
    loops = [rings[0][:-1], *(_from_left(ring[:-1]) for ring in rings[1:])]
    if len(loops) == 1:
        only: Array = loops[0]
        return only
    on, edge, at = _bridges(loops)
    hanging: defaultdict[int, list[int]] = defaultdict(list)
    along = np.abs(at[:, 1] - np.array([loops[r][e, 1] for r, e in zip(on, edge, strict=True)]))
    for hole in np.lexsort((along, edge)):  # as one meets them, going around
        hanging[on[hole]].append(int(hole) + 1)
    pieces: list[Array] = []
    walk = [(0, iter(hanging[0]), 0)]
    while walk:
        ring, holes, done = walk.pop()
        hole = next(holes, 0)
        if hole:
            until = int(edge[hole - 1]) + 1
            pieces += [loops[ring][done:until], at[hole - 1 : hole]]
            walk += [(ring, holes, until), (hole, iter(hanging[hole]), 0)]
        else:
            pieces.append(loops[ring][done:])
            if ring:
                pieces += [loops[ring][:1], at[ring - 1 : ring]]
    joined = np.concatenate(pieces)
    corners: Array = joined[(joined != np.roll(joined, 1, axis=0)).any(axis=1)]
    return corners


def _from_left(loop: Array) -> Array:
    """The same loop, beginning at the upper of its leftmost corners."""
    return np.roll(loop, -int(np.lexsort((loop[:, 1], loop[:, 0]))[0]), axis=0)


def _bridges(loops: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Where the bridge of every loop but the first ends: on which loop, on its edge from which corner, at which point.

    It ends at the last edge to the left in the row of pixels below the loop's first corner.
    """
    begin = np.concatenate(loops)
    end = np.concatenate([np.roll(loop, -1, axis=0) for loop in loops])
    loop = np.repeat(np.arange(len(loops)), [len(one) for one in loops])
    corner = np.concatenate([np.arange(len(one)) for one in loops])
    upright = np.flatnonzero(begin[:, 0] == end[:, 0])
    corners = np.array([one[0] for one in loops[1:]])
    rows, row = np.unique(corners[:, 1], return_inverse=True)
    top, bottom = np.minimum(begin, end)[upright, 1], np.maximum(begin, end)[upright, 1]
    first, past = np.searchsorted(rows, top), np.searchsorted(rows, bottom)
    count = past - first
    edge = np.repeat(upright, count)  # once for each row of a first corner that it passes
    passed = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    width = int(begin[:, 0].max()) + 1
    place = passed * width + begin[edge, 0]
    order = np.argsort(place)
    found = edge[order[np.searchsorted(place[order], row * width + corners[:, 0]) - 1]]
    return loop[found], corner[found], np.stack([begin[found, 0], corners[:, 1]], axis=1)
