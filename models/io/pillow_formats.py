"""BMP, GIF, AVIF and animated WebP to pixels, by Pillow: the first frame.

Pillow reads the header when it opens a file, and the pixels later: its size is judged in between. Knows nothing of
other formats.
"""

import io
import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from models.io import exif
from models.io.picture import RESIZING_BYTES, Channels, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, Limits, Size, UnsupportedImage
from models.types import Array

Image.MAX_IMAGE_PIXELS = None  # our own limit stands before every decode, and is lower
_BMP_PALETTE = 14 + 40  # where it begins
_ANIMATED = "the file is animated: its first frame is what was looked at"
_GRAY = ("1", "L", "LA", "I;16")
_DECODING_BYTES = 4 + 4 + 4 + 3  # of a pixel: the codec's, Pillow's, numpy's copy, the RGB image


def inspect(data: bytes, name: str, limits: Limits, choice: Choice) -> Encoded:
    """A file of the format `name`, as Pillow calls it, as `models.io.decode.inspect` has it."""
    with _opened(data, name) as image:
        limits.check_size(image.height, image.width)
        check_bands(choice.bands, 1 if image.mode in _GRAY else 3)
        turn = exif.orientation(image.info.get("exif"), image.info.get("xmp"))
        size = (image.width, image.height) if turn >= 5 else (image.height, image.width)
    return first_frame(data, name, size, choice)


def first_frame(data: bytes, name: str, size: Size, choice: Choice) -> Encoded:
    """The same of a file whose size (H, W), as it is shown, is known, and within the limits."""
    working, seconds = size[0] * size[1] * max(_DECODING_BYTES, RESIZING_BYTES), math.inf
    return Encoded(size, working, lambda: _decode(data, name, size, choice), seconds)


def _decode(data: bytes, name: str, size: Size, choice: Choice) -> Decoded:
    if name == "BMP" and (grays := _gray_palette(data)) is not None:
        first = bytes([data[_BMP_PALETTE] ^ 1])  # one gray is none now: Pillow hands out the indices
        with _opened(data[:_BMP_PALETTE] + first + data[_BMP_PALETTE + 1 :], name) as image:
            return show(Channels(grays[np.asarray(image)]), choice)
    with _opened(data, name) as image:
        profile = image.info.get("icc_profile")
        turn = exif.orientation(image.info.get("exif"), image.info.get("xmp"))
        image.load()
        if image.size not in (size, size[::-1]):  # what the header said was judged
            raise ImageError(f"the {name} file is damaged: it states two sizes")
        if "transparency" in image.info:
            image = image.convert("RGBA")
        elif image.mode not in ("L", "LA", "RGB", "RGBA"):
            image = image.convert("L" if image.mode in _GRAY else "RGB")
        channels = Channels(np.array(image), profile, turn)
        moves = bool(getattr(image, "is_animated", False))
    shown = show(channels, choice)
    return replace(shown, warnings=(*shown.warnings, _ANIMATED)) if moves else shown


def _gray_palette(data: bytes) -> Array | None:
    """uint8 [256] of a BMP of 4 or 8 bits whose palette is gray: Pillow takes some such indices for bits or levels."""
    try:
        header, bits, colors = *struct.unpack_from("<I10xH", data, 14), *struct.unpack_from("<I", data, 46)
        palette = np.frombuffer(data, np.uint8, 4 * (colors or 1 << bits), _BMP_PALETTE).reshape(-1, 4)
    except (struct.error, ValueError):
        return None
    if header != 40 or bits not in (4, 8) or len(palette) > 256 or (palette[:, :3] != palette[:, :1]).any():
        return None
    return np.pad(palette[:, 0], (0, 256 - len(palette)))


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The file, its header read. What Pillow raises inside is raised as ImageError or UnsupportedImage."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata we do not use
        try:
            with Image.open(io.BytesIO(data), formats=(name,)) as image:
                yield image
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(f"the {name} file is damaged: its header cannot be read; send it again") from None
        except Exception as error:  # Pillow's plugins raise what their parsers meet: OSError, struct.error …
            if "nsupported" in str(error):
                raise UnsupportedImage(
                    f"this is a kind of {name} that is not opened; save it as PNG, or without compression"
                ) from None
            raise ImageError(f"the {name} file is damaged or truncated; send it again") from None
