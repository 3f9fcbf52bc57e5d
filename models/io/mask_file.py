"""PNG files that mark places of another picture: every pixel that is not zero.

Knows nothing of that picture, but its size. A palette's pixels are its indices, not its colors: of label maps, class 0
is what is not marked. What is transparent is not marked either.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from models.io import png_file
from models.io.samples import Choice, ImageError, Limits
from models.types import Array


def decode(data: bytes, size: tuple[int, int], limits: Limits) -> Array:
    """bool [H, W] of a PNG that has to be of a size (H, W). Raises ImageError and its kin."""
    limits.check_bytes(len(data))
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ImageError("the mask is no PNG: send one of the image's size, whose pixels are not 0 at the place meant")
    found = png_file.inspect(data, limits, Choice()).size
    if found != size:
        raise ImageError(
            f"the mask has {found[1]}×{found[0]} pixels and the image {size[1]}×{size[0]}: draw it at the image's size"
        )
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            pixels: Array = np.asarray(picture)
            with_alpha = picture.mode in ("LA", "RGBA")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ImageError(f"the mask cannot be read: {error}") from None
    if pixels.ndim == 2:
        marked: Array = pixels != 0
        return marked
    if with_alpha:
        seen: Array = (pixels[..., :-1] != 0).any(axis=2) & (pixels[..., -1] != 0)
        return seen
    drawn: Array = (pixels != 0).any(axis=2)
    return drawn
