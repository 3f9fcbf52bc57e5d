"""A file's bytes to pixels: which reader opens which format stands in `models.io.kinds`.

Knows nothing of clusters, of networks, of HTTP. Sizes are (H, W) everywhere. Every limit is judged from the header,
before a pixel is decoded.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

from models.io import dicom, heif, jpeg, jpeg2000, jpegxl, kinds, pillow_formats, png_file, tiff, webp
from models.io.pixels import Pixels
from models.io.samples import Choice, Decoded, Depth, Encoded, ImageError, Limits, NoSuchPart

SUFFIXES = kinds.suffixes()
_READERS: dict[str, Callable[[bytes, Limits, Choice], Encoded]] = {
    "jpeg": jpeg.inspect,
    "png": png_file.inspect,
    "tiff": tiff.inspect,
    "webp": webp.inspect,
    "bmp": lambda data, *how: pillow_formats.inspect(data, "BMP", *how),
    "gif": lambda data, *how: pillow_formats.inspect(data, "GIF", *how),
    "jpeg2000": jpeg2000.inspect,
    "jpegxl": jpegxl.inspect,
    "avif": lambda data, *how: heif.inspect(data, "AVIF", *how),
    "heic": lambda data, *how: heif.inspect(data, "HEIC", *how),
    "dicom": dicom.inspect,
}
_BOUNDED = ("jpeg", "png", "webp")  # their readers know how long they take
_OTHERS_HEADERS = re.compile(rb"GIF8|BM|.{128}DICM", re.DOTALL)  # of files whose headers others read
_WITH_PAGES = ("tiff", "dicom")


def inspect(data: bytes | Pixels, *, limits: Limits | None = None, choice: Choice | None = None) -> Encoded:
    """The image in a file's bytes, its header read and no pixel yet: how large it is, what decoding it will take.
    Pixels are what they are.

    Raises ImageError (unreadable), ImageTooLarge, UnsupportedImage, NoSuchPart.
    """
    limits, choice = limits or Limits(), choice or Choice()
    if isinstance(data, Pixels):
        return data.inspect(limits, choice)
    if not data:
        raise ImageError("the image is empty: 0 bytes arrived")
    limits.check_bytes(len(data))
    reader = kinds.kind_of(data).reader
    if choice.page and reader not in _WITH_PAGES:
        raise NoSuchPart(f"page {choice.page}: only TIFF and DICOM files have pages; leave `page` out")
    if choice.level and reader != "tiff":
        raise NoSuchPart(f"pyramid {choice.level}: only TIFF files have pyramids; leave `pyramid` out")
    found = _READERS[reader](data, limits, choice)
    return found if reader in _BOUNDED else found._replace(seconds=math.inf)


def header_is_bounded(data: bytes | Pixels) -> bool:
    """Whether `inspect` takes some hundredths of a second at most, whatever the bytes say; else it may take long."""
    return isinstance(data, Pixels) or _OTHERS_HEADERS.match(data) is None


def decode(
    data: bytes,
    *,
    limits: Limits | None = None,
    depth: Depth = "percentile",
    page: int = 0,
    bands: tuple[int, ...] | None = None,
) -> Decoded:
    """The image in a file's bytes: RGB uint8 [H, W, 3], turned as a viewer shows it; `Choice` has the options.

    Raises what `inspect` raises.
    """
    return inspect(data, limits=limits, choice=Choice(depth, page, bands)).decode()


def load(
    path: Path | str,
    *,
    limits: Limits | None = None,
    depth: Depth = "percentile",
    bands: tuple[int, ...] | None = None,
) -> Decoded:
    """`decode` of a file on disk. Raises the same, and OSError."""
    return decode(Path(path).read_bytes(), limits=limits, depth=depth, bands=bands)
