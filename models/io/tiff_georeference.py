"""Where a TIFF says that its picture lies: GeoTIFF's tags, and RPCs.

What GDAL is asked is only what the keys of a coordinate system mean, in a TIFF of one pixel that is written here:
nothing else of the file meets it. Knows nothing of samples.
Source: OGC GeoTIFF 1.1 (19-008r4); RPCs in GeoTIFF (geotiff.maptools.org); GDAL's GTiff driver, whose reading of
doubtful files this is.
"""

import mmap
import struct
from pathlib import Path
from typing import Any, cast

import numpy as np

from models.io import geodesy, tiff_directory
from models.io.georeference import RPC_OFFSETS, RPC_SCALES, RPC_TERMS, Affine, ControlPoint, Georeference
from models.io.samples import ImageError, NoSuchPart
from models.io.tiff_directory import Contents, Directory
from models.types import Array

PIXEL_SCALE, TIE_POINTS, MATRIX, RPC = 33550, 33922, 34264, 50844
KEYS, KEY_DOUBLES, KEY_TEXT = 34735, 34736, 34737

_MODEL_TYPE, _RASTER_TYPE, _POINT = 1024, 1025, 2
_MOST_POINTS = 10_000
_MOST_KEYS, _MOST_DOUBLES, _MOST_TEXT = 256, 1024, 2**15
_RPC_NUMBERS = 92
_DUMMY_PLACE = ((PIXEL_SCALE, np.array([1, 1, 0.0])), (TIE_POINTS, np.array([0, 0, 0, 0, 1, 0.0])))


def read(data: bytes, *, page: int = 0, level: int = 0) -> Georeference | None:
    """Of one of a file's pictures as it is shown, at the size of a level of its pyramid; None where it says nothing.

    Raises ImageError for bytes that are no TIFF, NoSuchPart for a page or level that it does not have.
    """
    if data[:4] not in tiff_directory.MAGIC:
        raise ImageError("the bytes are no TIFF")
    contents = Contents(data)
    if page >= len(contents.pictures):
        raise NoSuchPart(f"page {page}: this file has {len(contents.pictures)} page(s), counted from 0")
    picture = contents.pictures[page]
    if level > len(picture.levels):
        raise NoSuchPart(f"pyramid {level}: this picture has {len(picture.levels)} smaller level(s)")
    found = _stored(picture.channels[0])
    if found is None or min(picture.size) < 1:
        return None
    if level:
        found = found.resized(picture.size, picture.levels[level - 1][0].size)
    size = picture.levels[level - 1][0].size if level else picture.size
    return found.turned(picture.channels[0].number(tiff_directory.ORIENTATION, 1), size)


def load(path: Path, *, page: int = 0, level: int = 0) -> Georeference | None:
    """`read` of a file on disk, of which only directories are read. Raises the same, and OSError."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ImageError("the bytes are no TIFF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return read(cast(bytes, mapped), page=page, level=level)


def _stored(directory: Directory) -> Georeference | None:
    """What a directory says of the picture as it is stored."""
    keys = _whole_numbers(directory, KEYS, 4 * (1 + _MOST_KEYS))
    point = _key(keys, _RASTER_TYPE) == _POINT
    half = 0.5 if point else 0.0
    transform = _transform(directory, half)
    points = () if transform is not None else _points(directory, half)
    rpcs = _rpcs(directory)
    if transform is None and not points and rpcs is None and _key(keys, _MODEL_TYPE) is None:
        return None
    return Georeference(_crs(directory, keys), transform, points, rpcs, point)


def _transform(directory: Directory, half: float) -> Affine | None:
    """Of areas; `half` of a pixel lies between what the tags mean and those."""
    scale, tie = directory.numbers(PIXEL_SCALE, 3).tolist(), directory.numbers(TIE_POINTS, 6).tolist()
    if len(scale) >= 2 and scale[0] and scale[1]:
        if len(tie) < 6:
            return None
        x, y = scale[0], -abs(scale[1])
        return _sound(x, 0.0, tie[3] - (tie[0] + half) * x, 0.0, y, tie[4] - (tie[1] + half) * y)
    if directory.count(MATRIX) != 16 or len(m := directory.numbers(MATRIX).tolist()) != 16:
        return None
    return _sound(m[0], m[1], m[3] - half * (m[0] + m[1]), m[4], m[5], m[7] - half * (m[4] + m[5]))


def _sound(*numbers: float) -> Affine | None:
    a, b, _, d, e, _ = numbers
    sound = np.isfinite(numbers).all() and a * e != b * d
    return cast(Affine, tuple(float(number) for number in numbers)) if sound else None


def _points(directory: Directory, half: float) -> tuple[ControlPoint, ...]:
    if directory.count(TIE_POINTS) > 6 * _MOST_POINTS:
        return ()
    numbers = directory.numbers(TIE_POINTS).astype(np.float64)
    numbers = numbers[: len(numbers) // 6 * 6].reshape(-1, 6)
    if not np.isfinite(numbers).all():
        return ()
    return tuple(ControlPoint(row + half, column + half, x, y, z) for column, row, _, x, y, z in numbers.tolist())


def _rpcs(directory: Directory) -> dict[str, Any] | None:
    numbers = directory.numbers(RPC, _RPC_NUMBERS).tolist() if directory.count(RPC) == _RPC_NUMBERS else []
    if len(numbers) != _RPC_NUMBERS or not np.isfinite(numbers).all() or not all(numbers[7:12]):
        return None
    rpcs: dict[str, Any] = dict(zip(("err_bias", "err_rand", *RPC_OFFSETS, *RPC_SCALES), numbers[:12], strict=True))
    return rpcs | {name: numbers[12 + 20 * i : 32 + 20 * i] for i, name in enumerate(RPC_TERMS)}


def _whole_numbers(directory: Directory, tag: int, most: int) -> Array:
    """The values of a tag; none where they are fractions."""
    found = directory.numbers(tag, most)
    return found if found.dtype.kind in "iu" else found[:0].astype(np.uint16)


def _key(keys: Array, wanted: int) -> int | None:
    """The number of a key that stands in the directory of keys itself."""
    for key, place, _, value in keys[4 : len(keys) // 4 * 4].reshape(-1, 4).tolist():
        if key == wanted and place == 0:
            return int(value)
    return None


def _crs(directory: Directory, keys: Array) -> str | None:
    """WKT of the coordinate system that the keys name; None where they name none, or GDAL is not installed."""
    if _key(keys, _MODEL_TYPE) is None or directory.count(KEYS) > 4 * (1 + _MOST_KEYS):
        return None
    doubles, text = directory.numbers(KEY_DOUBLES, _MOST_DOUBLES), _whole_numbers(directory, KEY_TEXT, _MOST_TEXT)
    return geodesy.crs_of_tiff(_one_pixel(keys.astype("<u2"), doubles.astype("<f8"), text.astype("u1")))


def _one_pixel(keys: Array, doubles: Array, text: Array) -> bytes:
    """A TIFF of one pixel, with these keys and a place of no meaning."""
    short, long, ascii, double = (3, "<u2"), (4, "<u4"), (2, "u1"), (12, "<f8")
    tags = [(tag, short, np.array([value])) for tag, value in
            ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1))]  # fmt: skip
    tags += [(273, long, np.array([8])), (279, long, np.array([1]))]
    tags += [(tag, double, values) for tag, values in _DUMMY_PLACE]
    tags += [(KEYS, short, keys)]
    tags += [(KEY_DOUBLES, double, doubles)] if doubles.size else []
    tags += [(KEY_TEXT, ascii, text)] if text.size else []
    entries, behind, at = b"", b"\0" * 4, 8 + 4
    for tag, (kind, dtype), values in sorted(tags, key=lambda one: one[0]):
        raw = values.astype(dtype).tobytes()
        inline = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", at)
        if len(raw) > 4:
            behind += raw + b"\0" * (len(raw) % 2)
            at += len(raw) + len(raw) % 2
        entries += struct.pack("<HHI", tag, kind, len(values)) + inline
    return b"II*\0" + struct.pack("<I", at) + behind + struct.pack("<H", len(tags)) + entries + b"\0" * 4
