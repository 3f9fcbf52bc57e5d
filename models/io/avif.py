"""AVIF files to pixels, by libavif: the still picture, or the first frame of a sequence.

Pillow reads the header here; the pixels are decoded apart. Knows nothing of other formats.
"""

import io

from PIL import Image

from models.io import apart, exif
from models.io.picture import Channels, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, Limits

_DECODING_BYTES, _ALWAYS_BYTES = 24, 32 * 2**20  # of a pixel, and of any picture: measured, and half more


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file of an AVIF brand, as `models.io.decode.inspect` has it."""
    try:
        with Image.open(io.BytesIO(data), formats=("AVIF",)) as image:
            size, profile = (image.height, image.width), image.info.get("icc_profile")
            turn = exif.orientation(image.info.get("exif"), image.info.get("xmp"))
    except Exception:  # Pillow's plugins raise what their parsers meet
        raise ImageError("the AVIF file is damaged or truncated; send it again") from None
    limits.check_size(*size)
    check_bands(choice.bands, 3)
    granted = min(_DECODING_BYTES * size[0] * size[1] + _ALWAYS_BYTES, limits.max_held_bytes)

    def decode() -> Decoded:
        samples = apart.decode(data, "AVIF", granted)
        if samples.shape[:2] != size:
            raise ImageError("the AVIF file is damaged: it states two sizes")
        return show(Channels(samples, profile, turn), choice)

    shown = size[::-1] if turn >= 5 else size
    return Encoded((shown[0], shown[1]), granted, decode)
