"""Label maps as cloud-optimized GeoTIFFs: written window by window, in bounded memory, there as a whole or not at all.

Tiles of 512, deflate, a color table, names of clusters as tags of the band, and overviews that hold no id that the map
does not: each pixel of theirs is the commonest of four. Knows nothing of clusters, of networks, of HTTP.
Source: OGC Cloud Optimized GeoTIFF 1.0 (21-026); GDAL's COG driver, which writes it.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from uuid import uuid4

import numpy as np

from models.io import geodesy
from models.io.georeference import Georeference
from models.io.samples import Size
from models.types import Array

_TILE = 512
_CACHE_BYTES = 64 * 2**20  # of tiles, that GDAL keeps while it writes
_MOST_COLORS = 256
_COG = {
    "driver": "COG",
    "COMPRESS": "DEFLATE",
    "BLOCKSIZE": str(_TILE),
    "OVERVIEWS": "IGNORE_EXISTING",
    "OVERVIEW_RESAMPLING": "MODE",
    "BIGTIFF": "IF_SAFER",
}


class LabelMapWriter:
    """A label map on its way to a file. As a context it is closed at the end, and dropped where that fails.

    path    where it will be, once it is whole
    size    (H, W);  georeference  of these pixels
    names   of the ids 0, 1, …;  colors  uint8 [K, 3] of the same
    nodata  the value of pixels in no cluster, which also stand where nothing was written

    Raises UsageError without rasterio, and OSError where it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        size: Size,
        georeference: Georeference | None = None,
        *,
        names: Sequence[str] = (),
        colors: Array | None = None,
        nodata: int = 255,
        dtype: Literal["uint8", "uint16"] = "uint8",
    ) -> None:
        geodesy.require("writing GeoTIFF")
        self._path, self._names, self._nodata = path, names, nodata
        token = uuid4().hex[:8]
        self._scratch = path.with_name(f".{path.name}.{token}.part")
        self._whole = path.with_name(f".{path.name}.{token}")
        with _writing(path):
            self._dataset = _created(str(self._scratch), size, georeference, names, colors, nodata, dtype)

    def write(self, top: int, left: int, labels: Array) -> None:
        """A window's labels [h, w], whose upper left pixel is (top, left). Windows may come in any order; whole tiles
        of 512, row by row, are written but once."""
        with _writing(self._path):
            _write(self._dataset, top, left, labels)

    def close(self) -> None:
        """The file takes its place."""
        try:
            with _writing(self._path):
                self._dataset.close()
                _copy(str(self._scratch), str(self._whole))
                os.replace(self._whole, self._path)
        finally:
            self.drop()

    def drop(self) -> None:
        """Nothing remains of it."""
        with suppress(Exception):  # on a full disk closing fails as well
            self._dataset.close()
        for path in (self._scratch, self._whole, *self._whole.parent.glob(f"{self._whole.name}.*")):
            path.unlink(missing_ok=True)

    def __enter__(self) -> "LabelMapWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.drop()


def encode(
    labels: Array,
    georeference: Georeference | None = None,
    *,
    names: Sequence[str] = (),
    colors: Array | None = None,
    nodata: int = 255,
) -> bytes:
    """The same file's bytes, of labels uint8 or uint16 [H, W] in memory. Raises UsageError without rasterio."""
    geodesy.require("format geotiff")
    from rasterio.io import MemoryFile

    with _writing(Path("memory")), MemoryFile() as scratch, MemoryFile() as whole:
        size = (labels.shape[0], labels.shape[1])
        dtype: Literal["uint8", "uint16"] = "uint8" if labels.dtype == np.uint8 else "uint16"
        with _created(scratch.name, size, georeference, names, colors, nodata, dtype) as dataset:
            _write(dataset, 0, 0, labels)
        _copy(scratch.name, whole.name)
        return bytes(whole.getbuffer())


def _created(
    path: str,
    size: Size,
    georeference: Georeference | None,
    names: Sequence[str],
    colors: Array | None,
    nodata: int,
    dtype: str,
) -> Any:
    """A tiled file, open for writing, with all but the labels."""
    import rasterio
    from rasterio.control import GroundControlPoint
    from rasterio.rpc import RPC

    place: dict[str, Any] = {}
    tags: dict[str, str] = {}
    if georeference is not None:
        crs = geodesy.crs(georeference.crs)
        if georeference.transform is not None:
            place = {"crs": crs, "transform": rasterio.Affine(*georeference.transform)}
            if crs and georeference.pixel_is_point:
                tags["AREA_OR_POINT"] = "Point"  # GDAL would move control points, and make up a system
        elif georeference.points:
            points = [GroundControlPoint(p.row, p.column, p.x, p.y, p.z) for p in georeference.points]
            place = {"gcps": points, "crs": crs or rasterio.CRS()}
        elif crs:
            place = {"crs": crs}
        if georeference.rpcs is not None:
            place["rpcs"] = RPC(**georeference.rpcs)
    dataset = rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=size[0],
        width=size[1],
        count=1,
        dtype=dtype,
        nodata=nodata,
        tiled=True,
        blockxsize=_TILE,
        blockysize=_TILE,
        compress="deflate",
        zlevel=1,
        bigtiff="if_safer",
        sparse_ok=True,
        **place,
    )
    dataset.update_tags(**tags)
    dataset.set_band_description(1, "cluster")
    dataset.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(names) if name})
    if colors is not None and dtype == "uint8":
        table = {i: (*(int(v) for v in color), 255) for i, color in enumerate(colors[:_MOST_COLORS])}
        dataset.write_colormap(1, table)
    return dataset


def _write(dataset: Any, top: int, left: int, labels: Array) -> None:
    from rasterio.windows import Window

    height, width = labels.shape
    dataset.write(labels, 1, window=Window(left, top, width, height))


def _copy(scratch: str, whole: str) -> None:
    from rasterio.shutil import copy

    copy(scratch, whole, **_COG)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """GDAL's settings; what it cannot write is an OSError that says where."""
    from rasterio.errors import RasterioError

    try:
        with geodesy.gdal(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_NUM_THREADS=1):
            yield
    except RasterioError as error:
        raise OSError(errno.EIO, str(error), str(path)) from None
