"""HEIC files by libheif (the extra `heic`) and AVIF files by libavif: the primary picture.

The header is read here; the pixels are decoded, and turned, apart. Knows nothing of other formats.
"""

from dataclasses import replace

import numpy as np

from models.io import apart, color_profile, heif_header
from models.io.picture import Channels, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, Limits

DECODING_BYTES, ALWAYS_BYTES = 24, 32 * 2**20  # of a pixel (17 of one of 10 bits, 8 of one of 8), and of any picture


def inspect(data: bytes, name: str, limits: Limits, choice: Choice) -> Encoded:
    """A file of the format `name` (`HEIC`, `AVIF`), as `models.io.decode.inspect` has it."""
    header = heif_header.read(data, name)
    limits.check_size(*header.size)
    check_bands(choice.bands, 3)
    pixels = header.size[0] * header.size[1]
    needed = DECODING_BYTES * pixels + ALWAYS_BYTES
    granted = min(needed, 2 * limits.max_held_bytes)

    def decode() -> Decoded:
        samples = apart.decode(data, name, granted, needed_bytes=needed)
        if samples.shape[:2] != header.size:
            raise ImageError(f"the {name} file is damaged: it states two sizes")
        if samples.dtype == np.uint16:  # photos of 10 and 12 bits, which libheif spreads over 16
            samples = (samples >> 8).astype(np.uint8)
        channels = Channels(samples, header.profile)
        if not header.profile and header.code_points:
            channels.profile = color_profile.of_code_points(*header.code_points, channels.warnings)
        return replace(show(channels, choice), orientation=header.orientation)

    return Encoded(header.size, granted + apart.HERE_BYTES * pixels, decode)
