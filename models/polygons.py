"""Label maps as polygons: connected regions, and the rings of pixel edges around them.

Pixels are neighbors where they share an edge. Rings are exact: what lies inside of them are the region's pixels and no
others. They are valid as polygons are understood elsewhere: no ring meets itself, and where a region's pixels meet at a
corner only, a hole touches its outline, or another hole.

Knows nothing of images, networks or requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from models.errors import TesseraError
from models.native import bindings
from models.native.bindings import Rings
from models.types import Array

MOST_CORNERS = 2_000_000  # of one map: text of twelve characters each
MOST_REGIONS = 100_000  # of some hundred
_HEADINGS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # east, south, west, north: x, y
_RIGHT = ((0, 0), (-1, 0), (-1, -1), (0, -1))  # the pixel ahead at the right hand
_LEFT = ((0, -1), (0, 0), (-1, 0), (-1, -1))  # and at the left


class TooManyRegions(TesseraError):
    """A map in which too much would have to be told; larger regions alone may do."""


class Region(NamedTuple):
    """One connected region.

    score  mean margin of its pixels, 0 where none were given
    rings  [n, 2] each, x, y, closed: the outline, then holes
    """

    id: int
    pixels: int
    score: float
    rings: list[Array]


@dataclass(frozen=True)
class Regions:
    """All of a map, in the order of their first pixels.

    ids     int32 [m];  pixels  int64 [m];  scores  float64 [m]
    points  [n, 2]: corners x, y of all rings; int32 from the left upper corner of the left upper pixel, unless moved
    bounds  int64 [r, 2]: each ring's first point and the one after its last;  first  int64 [m + 1]: of each region's
    """

    ids: Array
    pixels: Array
    scores: Array
    points: Array
    bounds: Array
    first: Array

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Region]:
        bounds, first = self.bounds.tolist(), self.first.tolist()
        for at, (id, pixels, score) in enumerate(
            zip(self.ids.tolist(), self.pixels.tolist(), self.scores.tolist(), strict=True)
        ):
            rings = [self.points[start:end] for start, end in bounds[first[at] : first[at + 1]]]
            yield Region(id, pixels, score, rings)

    def moved(self, points: Array) -> "Regions":
        """The same regions with their corners elsewhere; outlines are counterclockwise there too, holes clockwise.

        points  float64 [n, 2]: where `self.points` lie in other coordinates, to which one affine map leads
        """
        if not len(self.bounds):
            return replace(self, points=points)
        start, end = self.bounds[0]
        if _doubled_area(points[start:end]) > 0:
            return replace(self, points=points)
        return replace(self, points=np.ascontiguousarray(points[::-1]), bounds=len(points) - self.bounds[:, ::-1])


def regions(
    labels: Array,
    margin: Array | None = None,
    *,
    min_area: int = 0,
    ignored: int | None = None,
    most: int = MOST_CORNERS,
) -> Regions:
    """The regions of a label map uint8 [H, W]; outlines are counterclockwise where y is taken to grow upwards, as in
    RFC 7946, so clockwise on a screen.

    margin    float32 of any size that shows the same picture
    min_area  smaller regions are left out;  ignored  so is an id
    most      corners: TooManyRegions is raised where there are more, or regions than MOST_REGIONS
    """
    chosen = min_area, -1 if ignored is None else ignored, most
    try:
        found = bindings.regions(labels, margin, *chosen)
    except OverflowError:
        raise TooManyRegions(f"the regions of this map have more than {most:,} corners") from None
    points, rings, ids, pixels, sums = found or plain_regions(labels, margin, *chosen)
    if len(ids) > MOST_REGIONS:
        raise TooManyRegions(f"this map has more than {MOST_REGIONS:,} regions")
    order = np.argsort(rings[:, 0], kind="stable")
    bounds = np.stack([rings[:, 1], np.append(rings[:, 1], len(points))[1:]], axis=1)[order]
    first = np.searchsorted(rings[order, 0], np.arange(len(ids) + 1))
    return Regions(ids, pixels, sums / np.maximum(pixels, 1), points, bounds, first)


def without_specks(labels: Array, min_area: int, value: int) -> Array:
    """A label map uint8 [H, W] with `value` in connected regions of fewer than `min_area` pixels."""
    erased = bindings.erase_specks(labels, min_area, value)
    if erased is not None:
        return erased
    region = _connected(labels)
    small = np.bincount(region.ravel()) < min_area
    return np.where(small[region], np.uint8(value), labels)


def plain_regions(labels: Array, margin: Array | None, smallest: int, ignored: int, most: int) -> Rings:
    """`bindings.regions` without a compiler: regions in numpy, their rings one corner after another."""
    height, width = labels.shape
    region = _connected(labels)
    pixels = np.bincount(region.ravel(), minlength=1)
    _, first = np.unique(region, return_index=True)
    ids = labels.ravel()[first].astype(np.int32)
    kept = (pixels >= smallest) & (ids != ignored)
    number = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    count = int(kept.sum())
    if 5 * count > most:
        raise TooManyRegions(f"the regions of this map have more than {most:,} corners")
    edged = np.full((height + 2, width + 2), -1, np.int32)
    edged[1:-1, 1:-1] = number[region]
    sums: Array = np.zeros(count)
    if margin is not None:
        here = edged[1:-1, 1:-1]
        shown = margin[np.arange(height) * margin.shape[0] // height][:, np.arange(width) * margin.shape[1] // width]
        sums = np.bincount(here[here >= 0], weights=shown[here >= 0], minlength=count)
    points, rings = _rings(edged, most)
    return Rings(points, rings, ids[kept], pixels[kept].astype(np.int64), sums)


def _connected(labels: Array) -> Array:
    """int32 [H, W]: the number of each pixel's region, by their first pixels."""
    height, width = labels.shape
    starts = np.ones((height, width), bool)
    starts[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(starts.ravel(), dtype=np.int32).reshape(height, width) - 1
    touching = (labels[1:] == labels[:-1]) & (starts[1:] | starts[:-1])
    pairs = np.unique(np.stack([run[:-1][touching], run[1:][touching]], axis=1), axis=0)
    parent = np.arange(int(run[-1, -1]) + 1 if run.size else 0, dtype=np.int32)
    while len(pairs):
        roots = parent[pairs]
        pairs = pairs[roots[:, 0] != roots[:, 1]]
        low, high = parent[pairs].min(axis=1), parent[pairs].max(axis=1)
        np.minimum.at(parent, high, low)
        while (parent != parent[parent]).any():
            parent = parent[parent]
    _, number = np.unique(parent, return_inverse=True)
    found: Array = number.astype(np.int32)[run]
    return found


def _rings(region: Array, most: int) -> tuple[Array, Array]:
    """Corners and rings, as `Rings` has them, of region numbers int32 [H + 2, W + 2] with -1 around and between."""
    inner, above = region[1:-1, 1:-1], region[:-2, 1:-1]
    edge = (inner >= 0) & (inner != above)
    begins = edge.copy()
    begins[:, 1:] &= ~(edge[:, :-1] & (inner[:, 1:] == inner[:, :-1]))
    points: list[tuple[int, int]] = []
    rings: list[tuple[int, int]] = []
    seen: set[tuple[int, int]] = set()
    at = region.item
    for y0, x0 in np.argwhere(begins).tolist():
        if (x0, y0) in seen:
            continue
        own, x, y, heading = int(inner[y0, x0]), x0, y0, 0
        rings.append((own, len(points)))
        while True:
            points.append((x, y))
            if heading == 0:
                seen.add((x, y))
            if len(points) >= most:
                raise TooManyRegions(f"the regions of this map have more than {most:,} corners")
            (east, south), right, left = _HEADINGS[heading], _RIGHT[heading], _LEFT[heading]
            while True:
                x, y = x + east, y + south
                ahead, aside = at(y + right[1] + 1, x + right[0] + 1), at(y + left[1] + 1, x + left[0] + 1)
                if ahead != own or aside == own:
                    break
            heading = (heading + (3 if aside == own else 1)) % 4
            if (x, y, heading) == (x0, y0, 0):
                points.append((x, y))
                break
    return np.array(points, np.int32).reshape(-1, 2), np.array(rings, np.int64).reshape(-1, 2)


def _doubled_area(ring: Array) -> float:
    """Twice what a closed ring [n, 2] encloses, negative where it goes clockwise."""
    x, y = (ring - ring[0]).astype(np.float64).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
