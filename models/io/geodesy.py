"""What rasterio, and in it GDAL and PROJ, are asked of coordinate systems: what they are, and the way to WGS 84.

Knows nothing of pictures. rasterio is an extra: without it no system is known, and `here` says so.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from models.errors import TesseraError, UsageError
from models.extras import brings
from models.io.georeference import ControlPoint
from models.types import Array

EXTRA = brings("geo")
WGS84 = "EPSG:4326"
_ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}  # no files beside


class NoWay(TesseraError):
    """Places that cannot be brought into the wanted coordinates."""


def here() -> bool:
    """Whether rasterio is installed."""
    return find_spec("rasterio") is not None


def require(what: str) -> None:
    """Raises UsageError where rasterio is not installed, which `what` needs."""
    if not here():
        raise UsageError(f"{what} needs rasterio, which is not installed: {EXTRA}")


@contextmanager
def gdal(**settings: str | int) -> Iterator[None]:
    """Around all that GDAL is asked: it looks for no files beside, writes none, and has these settings besides."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, TransformWarning

    # For good, and again where somebody took it away: what `warnings` offers for a while is not of one thread alone.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    warnings.filterwarnings("ignore", category=TransformWarning)
    with rasterio.Env(**_ALONE, **settings):
        yield


def crs_of_tiff(data: bytes) -> str | None:
    """WKT of the coordinate system of a GeoTIFF that we wrote; None where it has none that GDAL knows."""
    if not here():
        return None
    from rasterio.errors import RasterioError
    from rasterio.io import MemoryFile

    try:
        with gdal(), MemoryFile(data) as file, file.open(driver="GTiff") as found:
            return found.crs.to_wkt(version="WKT2_2019") if found.crs else None
    except (RasterioError, ValueError):  # text that is no UTF-8, for one
        return None


def crs(wkt: str | None) -> Any:
    """rasterio's object of a system's WKT; None where there is none, or it cannot be read."""
    if wkt is None:
        return None
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        with gdal():
            return CRS.from_wkt(wkt)
    except CRSError:
        return None


def to_wgs84(wkt: str, points: Array) -> Array:
    """Longitude and latitude [n, 2] of places x, y [n, 2] in a coordinate system. Raises NoWay."""
    system = crs(wkt)
    if system is None:
        raise NoWay("its coordinate system is not known")
    if system.to_epsg() == 4326:
        return points.copy()
    from rasterio import warp

    with _asked():
        return np.stack(warp.transform(system, WGS84, points[:, 0], points[:, 1]), axis=1)


def by_points(points: Sequence[ControlPoint], corners: Array) -> Array:
    """Places [n, 2] of pixels' corners x, y [n, 2], by polynomials through control points as GDAL makes them: of the
    second order where there are enough, else of the first. Raises NoWay."""
    from rasterio.control import GroundControlPoint
    from rasterio.transform import GCPTransformer

    known = [GroundControlPoint(p.row, p.column, p.x, p.y, p.z) for p in points]
    with _asked(), GCPTransformer(known) as way:
        return np.stack(way.xy(corners[:, 1], corners[:, 0], offset="ul"), axis=1)


def by_rpcs(rpcs: dict[str, Any], corners: Array) -> Array:
    """Longitude and latitude [n, 2] of pixels' corners x, y [n, 2], at the mean height that the polynomials name.
    Raises NoWay."""
    from rasterio.rpc import RPC
    from rasterio.transform import RPCTransformer

    options = {"RPC_HEIGHT": rpcs["height_off"], "RPC_PIXEL_ERROR_THRESHOLD": 0.001, "RPC_MAX_ITERATIONS": 50}
    with _asked(), RPCTransformer(RPC(**rpcs), **options) as way:
        return np.stack(way.xy(corners[:, 1], corners[:, 0], offset="ul"), axis=1)


@contextmanager
def _asked() -> Iterator[None]:
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        with gdal():
            yield
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        raise NoWay(f"its coordinates cannot be brought to longitude and latitude ({str(error)[:100]})") from None
