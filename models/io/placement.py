"""The way from a picture's pixels to the earth: to WGS 84, or to the coordinates that its file uses.

What is a straight line between pixels may be a curve there: edges are cut into so short ones that no point of theirs is
further than a tenth of a pixel from where it belongs. Longitudes go on beyond 180° where the picture does.

Knows nothing of files, of labels. Without rasterio nothing is placed but by a transform into its own coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.errors import TesseraError
from models.io import geodesy
from models.io.georeference import Georeference
from models.io.samples import Size
from models.types import Array

Way = Callable[[Array], Array]

_TOLERANCE_PX = 0.05  # measured on a grid; what lies between its points is not twice as much
_CELLS = 32  # of the grid, in each direction


class NotPlaced(TesseraError):
    """The picture has no place on the earth that is known here; the message is the end of a sentence."""


@dataclass(frozen=True)
class Placement:
    """Of one picture.

    way      corners float64 [n, 2] x, y in pixels → [n, 2] longitude, latitude, or the source's x, y
    longest  edge in pixels, that stays one
    crs      of what comes out, as WKT;  by  what of the source leads there
    """

    way: Way
    longest: float
    crs: str | None
    by: str = "transform"

    def rings(self, points: Array, bounds: Array) -> tuple[Array, Array]:
        """Closed rings along the edges of pixels, where they lie: points [n, 2] of all of them, and int64 [r, 2] which
        are each one's, as `models.polygons.Regions` has them."""
        points = points.astype(np.float64)
        if np.isfinite(self.longest):
            points, bounds = self._cut(points, bounds)
        return self.way(points), bounds

    def _cut(self, points: Array, bounds: Array) -> tuple[Array, Array]:
        if not len(bounds):
            return points, bounds
        step = np.zeros_like(points)
        step[:-1] = np.diff(points, axis=0)
        step[bounds[:, 1] - 1] = 0  # a ring's last point has none behind it
        pieces = np.maximum(1, np.ceil(np.abs(step).sum(axis=1) / self.longest)).astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(pieces)])
        which = np.repeat(np.arange(len(points)), pieces)
        part = (np.arange(starts[-1]) - starts[which]) / pieces[which]
        ends = np.stack([starts[bounds[:, 0]], starts[bounds[:, 1] - 1] + 1], axis=1)
        return points[which] + part[:, None] * step[which], ends


def to_wgs84(georeference: Georeference, size: Size) -> Placement:
    """Longitude and latitude, for a picture of this size (H, W). Raises NotPlaced."""
    if not georeference.placed:
        raise NotPlaced("the file names a coordinate system and no place in it")
    if not geodesy.here():
        raise NotPlaced(f"rasterio is not installed: {geodesy.EXTRA}")
    with_system = georeference.transform is not None or georeference.points
    if with_system and georeference.crs is not None:
        own, crs = _own(georeference), georeference.crs
        by = "transform" if georeference.transform is not None else f"{len(georeference.points)} control points"
        return _measured(lambda points: geodesy.to_wgs84(crs, own(points)), size, geodesy.WGS84, by)
    if georeference.rpcs is not None:
        by = f"RPCs at a height of {georeference.rpcs['height_off']:g} m, without a terrain model"
        return _measured(_by_rpcs(georeference.rpcs), size, geodesy.WGS84, by)
    raise NotPlaced("the file does not say of which coordinate system its coordinates are")


def to_own(georeference: Georeference, size: Size) -> Placement:
    """The coordinates that the source uses; of one with RPCs alone, longitude and latitude. Raises NotPlaced."""
    if georeference.transform is not None:
        return Placement(_own(georeference), np.inf, georeference.crs)
    if not geodesy.here():
        raise NotPlaced(f"rasterio is not installed: {geodesy.EXTRA}")
    if georeference.points:
        return _measured(_own(georeference), size, georeference.crs, "control points", around=False)
    if georeference.rpcs is not None:
        return to_wgs84(georeference, size)
    raise NotPlaced("the file names a coordinate system and no place in it")


def _own(georeference: Georeference) -> Way:
    if georeference.transform is not None:
        a, b, c, d, e, f = georeference.transform
        matrix, origin = np.array([[a, d], [b, e]]), np.array([c, f])
        return lambda points: points @ matrix + origin
    points = georeference.points
    return _finite(lambda corners: geodesy.by_points(points, corners))


def _by_rpcs(rpcs: dict[str, object]) -> Way:
    return _finite(lambda corners: geodesy.by_rpcs(rpcs, corners))


def _finite(way: Way) -> Way:
    def checked(points: Array) -> Array:
        try:
            placed = way(points)
        except geodesy.NoWay as error:
            raise NotPlaced(str(error)) from None
        if not np.isfinite(placed).all():
            raise NotPlaced("a part of the picture lies where its coordinate system has no longitude and latitude")
        return placed

    return checked


def _measured(way: Way, size: Size, crs: str | None, by: str, *, around: bool = True) -> Placement:
    """With the longest edge that may stay one.

    around  whether x goes around the earth, and is to go on where it would begin again
    """
    way = _finite(way)
    height, width = size
    across, down = (min(_CELLS, max(2, side)) + 1 for side in (width, height))
    x, y = np.meshgrid(np.linspace(0, width, across), np.linspace(0, height, down))
    grid = way(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(down, across, 2)
    if around:
        grid[..., 0] = _going_on(grid[..., 0])
        way = _near(way, grid[..., 0], size)
    return Placement(way, _longest(grid, (height / (down - 1), width / (across - 1))), crs, by)


def _going_on(longitudes: Array) -> Array:
    """A grid of longitudes without the steps of 360°; the middle one is from -180 to 180. Raises NotPlaced where it
    goes around a pole."""
    by_rows = np.unwrap(np.unwrap(longitudes, period=360, axis=1), period=360, axis=0)
    by_columns = np.unwrap(np.unwrap(longitudes, period=360, axis=0), period=360, axis=1)
    if np.abs(by_rows - by_columns).max() > 180:
        raise NotPlaced("the picture goes around a pole, where longitudes begin again")
    middle = by_rows[by_rows.shape[0] // 2, by_rows.shape[1] // 2]
    turned: Array = by_rows - 360 * np.round(middle / 360)
    return turned


def _near(way: Way, grid: Array, size: Size) -> Way:
    """The way, with longitudes as near to those of the grid as whole turns bring them."""

    def continued(points: Array) -> Array:
        placed = way(points)
        row, column = (
            np.rint(points[:, axis] * ((cells - 1) / side)).astype(int).clip(0, cells - 1)
            for axis, cells, side in ((1, grid.shape[0], size[0]), (0, grid.shape[1], size[1]))
        )
        placed[:, 0] += 360 * np.round((grid[row, column] - placed[:, 0]) / 360)
        return placed

    return continued


def _longest(grid: Array, step: tuple[float, float]) -> float:
    """How long an edge in pixels may be, by how much a grid of places [h, w, 2] bends; `step` pixels apart."""
    right, down = np.gradient(grid, step[1], axis=1), np.gradient(grid, step[0], axis=0)
    turns = np.stack([right, down], axis=-1)  # [h, w, place, pixel]
    if (np.abs(np.linalg.det(turns)) < 1e-300).any():
        return 1.0
    bend = 0.0
    for axis, apart in ((0, step[0]), (1, step[1])):
        second = np.diff(grid, 2, axis=axis) / (8 * apart**2)  # what an edge of one pixel is off in its middle
        inner = turns[1:-1] if axis == 0 else turns[:, 1:-1]
        bend = max(bend, float(np.abs(np.linalg.solve(inner, second[..., None])).max()))
    return max(1.0, float(np.sqrt(_TOLERANCE_PX / bend))) if bend else np.inf
