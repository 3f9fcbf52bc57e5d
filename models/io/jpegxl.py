"""JPEG XL files and codestreams to pixels, by libjxl: of an animation the first frame.

The header is read here; the pixels are decoded apart. libjxl gives lossy pictures in sRGB, and lossless ones as they
are: their profile is not handed out. Knows nothing of other formats.
"""

from dataclasses import replace

from models.io import apart, jpegxl_header
from models.io.jpegxl_header import Header
from models.io.picture import Channels, all_of_a_byte, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, Limits, UnsupportedImage

# Of a pixel, and of any picture. Measured: 6 to 21 of a pixel, 28 of small pictures.
DECODING_BYTES, ALWAYS_BYTES = 40, 32 * 2**20
_MAX_EXTRA = 8


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file that begins as JPEG XL, as `models.io.decode.inspect` has it."""
    header = jpegxl_header.read(data)
    height, width = header.size
    limits.check_size(height, width)
    if header.extra > _MAX_EXTRA:
        raise UnsupportedImage(f"JPEG XL of {header.extra} channels beside its colors is not opened; save it as TIFF")
    needed = DECODING_BYTES * height * width + ALWAYS_BYTES
    granted = min(needed, limits.max_held_bytes)
    working = granted + apart.HERE_BYTES * height * width
    return Encoded(header.size, working, lambda: _decode(data, header, granted, needed, choice))


def _decode(data: bytes, header: Header, granted: int, needed: int, choice: Choice) -> Decoded:
    samples = apart.decode(data, "JPEG XL", granted, needed_bytes=needed)
    if samples.shape[:2] != header.size or samples.ndim not in (2, 3):
        raise ImageError("the JPEG XL file is damaged: its header and its pixels differ in size; send it again")
    samples = all_of_a_byte(samples, header.bits).reshape(*header.size, -1)
    channels = Channels(samples, premultiplied=header.premultiplied, bits=header.bits)
    colors = 3 if samples.shape[2] >= 3 else 1
    kept = [*range(colors)]
    if header.alpha is not None and colors + header.alpha < samples.shape[2]:
        kept.append(colors + header.alpha)
    if len(kept) < samples.shape[2]:
        channels.samples = samples[..., kept]
        channels.warnings.append(f"{samples.shape[2] - len(kept)} of the file's {samples.shape[2]} bands were left out")
    check_bands(choice.bands, colors)
    return replace(show(channels, choice), orientation=header.orientation)  # libjxl has taken the turn
