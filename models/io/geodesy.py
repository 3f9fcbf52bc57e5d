"""What rasterio, and in it GDAL and PROJ, are asked of coordinate systems: what they are, and the way to WGS 84.

Knows nothing of pictures. rasterio is an extra: without it no system is known, and `here` says so.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from models.errors import UsageError

EXTRA = "pip install 'tessera-segmentation[geo]'"
_ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}  # no files beside


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
    from rasterio.errors import NotGeoreferencedWarning

    # For good, and again where somebody took it away: what `warnings` offers for a while is not of one thread alone.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
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
    except (RasterioError, UnicodeDecodeError):
        return None


def crs(wkt: str | None) -> Any:
    """rasterio's object of a system's WKT; None where there is none, or it cannot be read."""
    if wkt is None:
        return None
    from rasterio.crs import CRS
    from rasterio.errors import RasterioError

    try:
        return CRS.from_wkt(wkt)
    except RasterioError:
        return None
