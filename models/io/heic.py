"""HEIC files to pixels, by libheif: the primary picture. Needs the extra `heic`.

pi-heif reads the header here; the pixels are decoded apart. Knows nothing of other formats.
"""

import io

from models.io import apart
from models.io.picture import Channels, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, Limits

_DECODING_BYTES, _ALWAYS_BYTES = 24, 32 * 2**20  # of a pixel, and of any picture: measured, and half more


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file of a HEIC brand, as `models.io.decode.inspect` has it."""
    from pi_heif import open_heif

    try:
        file = open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        image = file[file.primary_index]
        width, height = image.size  # libheif takes the turn
        profile, premultiplied = image.info.get("icc_profile"), bool(image.premultiplied_alpha)
        gray = image.mode in ("L", "LA")
    except Exception:  # libheif raises what its parsers meet
        raise ImageError("the HEIC file is damaged or truncated; send it again") from None
    limits.check_size(height, width)
    check_bands(choice.bands, 1 if gray else 3)
    granted = min(_DECODING_BYTES * height * width + _ALWAYS_BYTES, limits.max_held_bytes)

    def decode() -> Decoded:
        samples = apart.decode(data, "HEIC", granted)
        if samples.shape[:2] != (height, width):
            raise ImageError("the HEIC file is damaged: it states two sizes")
        return show(Channels(samples, profile, premultiplied=premultiplied), choice)

    return Encoded((height, width), granted, decode)
