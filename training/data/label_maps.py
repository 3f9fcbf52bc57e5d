"""Files of label maps → the values they store: never scaled, inverted, looked up in a palette or rounded.

Knows nothing of classes. A value is the number that the file stores for a pixel: of a palette the index; of
min-is-white what stands there, as GDAL and tifffile read it; of 1, 2 and 4 bits 0 to 1, 3 and 15. Of a TIFF it is the
first full image. PNG is Pillow's, which scales 2 and 4 bits to 0..255: that is undone. BMP with a palette is read here:
Pillow drops gray palettes, and with them the number of bits.
"""

import io
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.io import tiff_directory
from models.io.samples import ImageError, upright
from models.io.tiff_directory import Contents
from models.io.tiff_segments import Segments
from models.types import Array
from training.data.errors import DataError
from training.data.limits import LIMITS

IGNORED = 255  # where nobody says otherwise
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
REFUSED_SUFFIXES = {".gif": "GIF", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

Color = tuple[int, int, int]
Values = NDArray[np.integer[Any]]

_REFUSED = {
    "GIF": "a GIF: its writers renumber the palette, so the index is no class's number",
    "JPEG": "a JPEG, which changes values along every edge",
    "MPO": "a JPEG, which changes values along every edge",
    "WEBP": "a WebP, which has colors only and may change them",
}
_INSTEAD = "save label maps as PNG (mode L or P) or TIFF"
_ONE_BYTE = f"a label map has one byte a pixel, the class's number: {_INSTEAD}"
_PNG_SCALE = {"L;2": 85, "L;4": 17}  # what Pillow multiplies gray values of 2 and 4 bits by
_ORIENTATION = 0x0112
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _MASK = range(5)  # TIFF's photometric interpretations
_TIFF_KINDS = {5: "CMYK", 6: "YCbCr", 8: "CIELab"}
_TIFF_JPEG = (6, 7)  # compressions
_LARGEST_FLOAT = 2**53  # up to which a float is every whole number


@dataclass(frozen=True)
class Colors:
    """The value of each color of a label map.

    values    color (R, G, B) → value
    palettes  of a palette map, too, the color says the value; False: the index does
    """

    values: Mapping[Color, int]
    palettes: bool = True


class _Stored(NamedTuple):
    """pixels  integers or floats [H, W], or RGB uint8 [H, W, 3];  palette  RGB uint8 [n, 3] where there is one."""

    pixels: Array
    palette: Array | None = None
    orientation: int = 1


LabelReader = Callable[[Path, Colors | None], Values]


def read_labels(path: Path, colors: Colors | None = None) -> Values:
    """Values of a label map: uint8 [H, W] where all are 0 to 255, else int64.

    colors  the value of each color; None: label maps in colors are refused, and of a palette the index is the value

    Turned as a viewer shows it, as photos are. Floats are read where all are whole numbers. Raises DataError.
    """
    try:
        data = path.read_bytes()
        stored = _tiff(data) if data[:4] in tiff_directory.MAGIC else _other(data)
        pixels = upright(stored.pixels, stored.orientation)
        if colors and (pixels.ndim == 3 or (stored.palette is not None and colors.palettes)):
            return _by_color(pixels if stored.palette is None else _looked_up(stored.palette, pixels), colors)
        if pixels.ndim == 3:
            near = [folder / "labelmap.txt" for folder in path.parents[:2]]  # where CVAT puts it
            table = next((str(file) for file in near if file.is_file()), "FILE")
            raise DataError(f"mode RGB; {_ONE_BYTE}; where its colors are classes: --classes {table}")
        return _whole(pixels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except ImageError as error:
        raise DataError(f"{path}: the label map cannot be read: {error}") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: the label map cannot be read: it is no image; {_INSTEAD}") from None
    except Exception as error:  # Pillow's parsers raise what they meet: struct.error, SyntaxError …
        raise DataError(f"{path}: the label map cannot be read: {error}") from None


def refusal(kind: str) -> str:
    """Why a file of this format, as Pillow calls it, is no label map, and what to save instead."""
    return f"it is {_REFUSED.get(kind, f'a file of format {kind}')}; {_INSTEAD}"


def _other(data: bytes) -> _Stored:
    """PNG, BMP, and what is refused."""
    if data[:2] == b"BM" and (stored := _bmp(data)):
        return stored
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata we do not use
        with Image.open(io.BytesIO(data)) as opened:
            if opened.format not in ("PNG", "BMP"):
                raise DataError(refusal(str(opened.format)))
            how = opened.tile[0][3]
            raw_mode = str(how[0]) if isinstance(how, tuple) else str(how)
            if opened.mode not in ("1", "L", "P", "I", "I;16", "RGB") or "16" in raw_mode.removeprefix("I;16"):
                kind = opened.mode if "16" not in raw_mode else f"{opened.mode} of 16 bits"
                raise DataError(f"mode {kind}; {_ONE_BYTE}")
            if opened.format == "BMP" and opened.mode == "1":
                raise DataError(f"a compressed BMP of two colors; {_INSTEAD}")
            palette = opened.getpalette("RGB") if opened.mode == "P" else None
            orientation = opened.getexif().get(_ORIENTATION, 1)
            pixels = np.asarray(opened) // np.uint8(_PNG_SCALE.get(raw_mode, 1)) if opened.mode == "L" else opened
            return _Stored(
                np.asarray(pixels),
                None if palette is None else np.array(palette, np.uint8).reshape(-1, 3),
                orientation if isinstance(orientation, int) else 1,
            )


def _bmp(data: bytes) -> _Stored | None:
    """Indices of an uncompressed BMP with a palette of 1, 2, 4 or 8 bits; None for every other BMP.

    Source: BITMAPCOREHEADER and BITMAPINFOHEADER, Windows GDI.
    """
    start, header = struct.unpack_from("<II", data, 10)
    if header == 12:  # of OS/2
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression, count, entry = 0, 0, 3
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (count,), entry = struct.unpack_from("<I", data, 46), 4
    if bits not in (1, 2, 4, 8) or compression:
        return None
    stride = (width * bits + 31) // 32 * 4  # rows end at 4 bytes
    rows = np.frombuffer(data, np.uint8, stride * abs(height), start).reshape(abs(height), stride)
    single = np.unpackbits(rows, axis=1).reshape(abs(height), -1, bits)
    pixels = (single @ (1 << np.arange(bits)[::-1]).astype(np.uint8))[:, :width]
    colors = np.frombuffer(data, np.uint8, entry * (count or 1 << bits), 14 + header).reshape(-1, entry)
    return _Stored(pixels[::-1] if height > 0 else pixels, colors[:, 2::-1])


def _tiff(data: bytes) -> _Stored:
    directory = Contents(data).pictures[0].channels[0]
    if directory.number(tiff_directory.COMPRESSION, 1) in _TIFF_JPEG:
        raise DataError(f"a TIFF compressed as JPEG, which changes values along every edge; {_INSTEAD}")
    kind, segments = directory.photometric, Segments(directory, LIMITS)
    single = segments.bands == 1 and kind in (_MIN_IS_WHITE, _MIN_IS_BLACK, _PALETTE, _MASK)
    rgb = segments.bands == 3 and kind == _RGB and segments.dtype == np.uint8
    if not (single or rgb):
        name = _TIFF_KINDS.get(kind, f"{segments.dtype} with {segments.bands} bands")
        raise DataError(f"{name}; {_ONE_BYTE}")
    pixels, palette = segments.read_all(), None
    if kind == _PALETTE and (colors := directory.numbers(tiff_directory.COLOR_MAP)).size:
        palette = (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8).reshape(3, -1).T
    orientation = directory.number(tiff_directory.ORIENTATION, 1)
    return _Stored(pixels if rgb else pixels[..., 0], palette, orientation)


def _looked_up(palette: Array, indices: Array) -> Array:
    """RGB uint8 [H, W, 3] of indices [H, W] into a palette [n, 3]; what lies behind its end is black."""
    whole = np.zeros((1 << 8 * indices.dtype.itemsize, 3), np.uint8)
    whole[: len(palette)] = palette
    found: Array = whole[indices.astype(np.intp)]
    return found


def _by_color(rgb: Array, colors: Colors) -> Values:
    """Values [H, W] of colors uint8 [H, W, 3]. Raises DataError for a color that has none."""
    packed = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    known = np.array(sorted((r << 16) + (g << 8) + b for r, g, b in colors.values), np.int32)
    values = np.array([colors.values[code >> 16, code >> 8 & 255, code & 255] for code in known.tolist()], np.int64)
    at = np.minimum(np.searchsorted(known, packed), len(known) - 1)
    if (strange := known[at] != packed).any():
        code = int(packed[strange][0])
        raise DataError(
            f"the color {code >> 16},{code >> 8 & 255},{code & 255} is none of --classes ({strange.mean():.1%} of its"
            " pixels have such colors): write a line for it, and --ignore NAME where it is no class"
        )
    return _whole(values[at])


def _whole(values: Array) -> Values:
    """Numbers of any type as uint8, or as int64 where they do not fit. Raises DataError where one is not whole."""
    if values.dtype.kind == "f":
        if (broken := values != np.rint(np.where(np.abs(values) < _LARGEST_FLOAT, values, 0))).any():
            raise DataError(f"it holds {values[broken][0]:g}, which is no class's number: {_ONE_BYTE}")
    elif values.dtype.kind not in "bui":
        raise DataError(f"samples of type {values.dtype}: {_ONE_BYTE}")
    if values.size and not (values.min() >= 0 and values.max() <= 255):
        return values.astype(np.int64)
    return values.astype(np.uint8)
