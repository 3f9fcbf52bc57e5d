"""A file's bytes to pixels: who reads which format. TIFF is tifffile's, plain JPEG libjpeg's, the rest Pillow's.

Knows nothing of clusters, of networks, of HTTP. Sizes are (H, W) everywhere; Pillow's (W, H) stays in
this file. Every limit is judged from the header, before a pixel is decoded.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from models.io import jpeg, tiff
from models.io.samples import (
    Choice,
    Decoded,
    Depth,
    Encoded,
    ImageError,
    Limits,
    UnsupportedImage,
    reason,
    to_rgb8,
    upright,
)
from models.types import Array

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # and TIFF, by tifffile
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
Image.MAX_IMAGE_PIXELS = None  # our own limit stands before every decode, and is lower


def inspect(data: bytes, *, limits: Limits | None = None, choice: Choice | None = None) -> Encoded:
    """The image in a file's bytes, its header read and no pixel yet: how large it is, what decoding it will take.

    Raises ImageError (unreadable), ImageTooLarge, UnsupportedImage, NoSuchBand.
    """
    limits, choice = limits or Limits(), choice or Choice()
    if not data:
        raise ImageError("the image is empty: 0 bytes arrived")
    limits.check_bytes(len(data))
    if data[:4] in tiff.MAGIC:
        return tiff.inspect(data, limits, choice)
    if choice.page:
        raise ImageError(f"page {choice.page}: only TIFF files have pages; leave `page` out")
    if header := jpeg.plain_header(data):
        limits.check_size(header.height, header.width)
        size = (header.height, header.width)
        return Encoded(size, 7 * size[0] * size[1], lambda: _plain_jpeg(data, header, limits, choice))
    return Encoded((0, 0), 0, lambda: _decode_pillow(data, limits, choice.depth))


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


def _plain_jpeg(data: bytes, header: jpeg.Header, limits: Limits, choice: Choice) -> Decoded:
    if (pixels := jpeg.decode(data, header)) is not None:
        return Decoded(pixels)
    return _decode_pillow(data, limits, choice.depth)


def _decode_pillow(data: bytes, limits: Limits, depth: Depth) -> Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata we do not use
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                limits.check_size(opened.height, opened.width)
                if opened.format == "PNG" and _png_is_16_bit(data):
                    return to_rgb8(_png16(data), depth, _orientation(opened))
                opened.load()
                return Decoded(upright(np.asarray(_to_rgb(opened)), _orientation(opened)))
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise _unknown(data) from None
        except Exception as error:  # Pillow's plugins raise what their parsers meet: OSError, struct.error …
            raise ImageError(f"the image is damaged or truncated: {reason(error)}") from None


def _unknown(data: bytes) -> ImageError:
    kinds = {
        b"%PDF": "a PDF", b"<svg": "an SVG", b"<?xm": "XML", b"PK\3\4": "a ZIP archive", b"<!DO": "HTML",
        b"SIMP": "FITS", b"%!PS": "PostScript", b"8BPS": "a Photoshop file", b"\0\0\0\x0c": "JPEG 2000",
    }  # fmt: skip
    if kind := kinds.get(data[:4]):
        return UnsupportedImage(f"this is {kind}; send JPEG, PNG, WebP, BMP, GIF or TIFF")
    if data[4:8] == b"ftyp":
        return UnsupportedImage("HEIC, AVIF and video are not opened; send JPEG, PNG, WebP, BMP, GIF or TIFF")
    return ImageError("these bytes are not an image; send JPEG, PNG, WebP, BMP, GIF or TIFF")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any 8-bit mode as RGB; what is transparent is shown on white, as a viewer's page would."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _png_is_16_bit(data: bytes) -> bool:
    return len(data) > 24 and data[12:16] == b"IHDR" and data[24] == 16


def _png16(data: bytes) -> Array:
    # Pillow cuts 16-bit RGB to its high byte and saturates 16-bit gray; imagecodecs keeps the samples.
    from imagecodecs import png_decode

    samples: Array = png_decode(data)
    return samples


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(0x0112, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
