"""Polygons that cross the 180th meridian, as RFC 7946 wants them: cut there, each part from -180° to 180°.

Knows nothing of what the polygons are of.
Source: RFC 7946, 3.1.9; the cut is Weiler & Atherton's (1977), by a vertical line.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from models.types import Array

Polygon = list[Array]  # rings [n, 2], closed: the outline counterclockwise, then holes clockwise

_ASIDE = 1e-9  # degrees, a tenth of a millimeter: how far beside the line is cut, as corners may lie upon it


def crosses(longitudes: Array) -> bool:
    """Whether any lies beyond -180° to 180°."""
    return bool(len(longitudes)) and (longitudes.min() < -180 or longitudes.max() > 180)


def cut(polygon: Polygon) -> list[Polygon]:
    """The parts of a polygon whose longitudes may go on beyond 180°."""
    outline = polygon[0][:, 0]
    first, last = (int(np.floor((end + 180) / 360)) for end in (outline.min(), outline.max()))
    parts = []
    for turn in range(first, last + 1):
        west, east = 360 * turn - 180, 360 * turn + 180
        inside = [polygon] if outline.min() >= west else _half(polygon, west, east_of=True)
        for one in inside:
            for part in [one] if one[0][:, 0].max() <= east else _half(one, east, east_of=False):
                parts.append([ring - [360 * turn, 0] for ring in part])
    return parts


def _half(polygon: Polygon, line: float, *, east_of: bool) -> list[Polygon]:
    """What of a polygon lies at one side of a meridian."""
    for aside in range(1, 8):
        at = line + (aside if east_of else -aside) * _ASIDE
        found = _joined(*_chains(polygon, at, east_of=east_of), east_of=east_of)
        if found is not None:
            return [[_onto(ring, at, line) for ring in part] for part in found]
    return []


def _chains(polygon: Polygon, line: float, *, east_of: bool) -> tuple[list[Array], list[Array]]:
    """Rings at the wanted side as a whole, and what is left there of the others: each from the line to the line."""
    whole, chains = [], []
    for ring in polygon:
        kept = ring[:-1, 0] > line if east_of else ring[:-1, 0] < line
        if kept.all():
            whole.append(ring)
        elif kept.any():
            start = int(np.flatnonzero(kept & ~np.roll(kept, 1))[0])
            corners, kept = np.roll(ring[:-1], -start, axis=0), np.roll(kept, -start)
            begins = np.flatnonzero(kept & ~np.roll(kept, 1)).tolist()
            for begin in begins:
                end = begin + int(np.argmin(np.append(kept[begin:], False)))
                before, after = corners[begin - 1], corners[end % len(corners)]
                enters, leaves = _meets(before, corners[begin], line), _meets(corners[end - 1], after, line)
                chains.append(np.concatenate([[enters], corners[begin:end], [leaves]]))
    return whole, chains


def _meets(one: Array, other: Array, line: float) -> Array:
    part = (line - one[0]) / (other[0] - one[0])
    return np.array([line, one[1] + part * (other[1] - one[1])])


def _joined(whole: list[Array], chains: list[Array], *, east_of: bool) -> list[Polygon] | None:
    """Polygons of rings and chains, along the line from where one ends to where the next begins; None where it cannot
    be told which that is. What is inside lies at the left: west of the line an end is below the beginning."""
    meets = sorted([(chain[0][1], east_of, True, number) for number, chain in enumerate(chains)]
                   + [(chain[-1][1], not east_of, False, number) for number, chain in enumerate(chains)])  # fmt: skip
    following: dict[int, int] = {}
    for (_, _, low_begins, low), (_, _, high_begins, high) in zip(meets[::2], meets[1::2], strict=True):
        if low_begins != east_of or high_begins == east_of:
            return None
        following[high if east_of else low] = low if east_of else high
    rings = list(whole)
    while following:
        first, number = next(iter(following.items()))
        pieces = [chains[first]]
        del following[first]
        while number != first:
            pieces.append(chains[number])
            number = following.pop(number)
        rings.append(np.concatenate([*pieces, pieces[0][:1]]))
    rings = [simple for ring in _traced(rings) for simple in _simple(ring)]
    areas = [_doubled_area(ring) for ring in rings]
    outlines = [ring for ring, area in zip(rings, areas, strict=True) if area > 0]
    holes = [ring for ring, area in zip(rings, areas, strict=True) if area < 0]
    if len(outlines) == 1:
        return [[outlines[0], *holes]]
    parts = [[outline] for outline in outlines]
    for hole in holes:
        owner = next((part for part in parts if _holds(part[0], hole)), None)
        if owner is None:
            return None
        owner.append(hole)
    return parts


def _traced(rings: list[Array]) -> list[Array]:
    """Rings of the same edges, around one connected piece each: at a corner that several pass, the sharpest left turn
    is taken, as what touches there only is not connected."""
    outgoing: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for ring in rings:
        for one, other in pairwise(map(tuple, ring.tolist())):
            outgoing.setdefault(one, []).append(other)
    traced = []
    while outgoing:
        start = next(iter(outgoing))
        path = [start]
        while path[-1] != start or len(path) == 1:
            here = path[-1]
            ways = outgoing[here]
            chosen = ways[0]
            if len(ways) > 1 and len(path) > 1:
                chosen = min(ways, key=partial(_clockwise, here, path[-2]))
            ways.remove(chosen)
            if not ways:
                del outgoing[here]
            path.append(chosen)
        traced.append(np.array(path))
    return traced


def _clockwise(here: tuple[float, float], came: tuple[float, float], goes: tuple[float, float]) -> float:
    """The angle from where a path came to where it goes."""
    back, on = (math.atan2(there[1] - here[1], there[0] - here[0]) for there in (came, goes))
    return (back - on) % (2 * math.pi) or 2 * math.pi


def _simple(ring: Array) -> list[Array]:
    """A ring in rings that meet none of their own corners again: where a hole that touched the outline became a part of
    it, there is such a corner."""
    found, path, at = list[Array](), list[tuple[float, float]](), dict[tuple[float, float], int]()
    for corner in map(tuple, ring.tolist()):
        if corner in at:
            start = at[corner]
            if len(path) - start > 2:
                found.append(np.array([*path[start:], corner]))
            for gone in path[start + 1 :]:
                del at[gone]
            del path[start + 1 :]
        else:
            at[corner] = len(path)
            path.append(corner)
    return found


def _holds(outline: Array, hole: Array) -> bool:
    """Whether a ring lies within another, which it may touch in single points."""
    x, y = (hole[0] + hole[1]) / 2
    (x0, y0), (x1, y1) = outline[:-1].T, outline[1:].T
    above = (y0 > y) != (y1 > y)
    right = x < x0[above] + (y - y0[above]) / (y1[above] - y0[above]) * (x1[above] - x0[above])
    return bool(right.sum() % 2)


def _onto(ring: Array, at: float, line: float) -> Array:
    return np.stack([np.where(ring[:, 0] == at, line, ring[:, 0]), ring[:, 1]], axis=1)


def _doubled_area(ring: Array) -> float:
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


def parts_of(rings: Sequence[Array]) -> list[Polygon]:
    """A polygon as it may be written: itself where it crosses nothing."""
    polygon = list(rings)
    return cut(polygon) if crosses(polygon[0][:, 0]) else [polygon]
