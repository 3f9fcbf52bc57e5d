"""JPEG XL files and codestreams to pixels, by libjxl: of an animation the first frame.

libjxl gives lossy pictures in sRGB, and lossless ones as they are: it does not hand out their profile here.
Knows nothing of other formats.
"""

from dataclasses import replace

from models.io import jpegxl_header
from models.io.jpegxl_header import Header
from models.io.picture import Channels, all_of_a_byte, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, ImageTooLarge, Limits, UnsupportedImage
from models.types import Array

_COLOR_BYTES = 40  # that libjxl and our arrays hold for each pixel, measured; and for each further channel
_EXTRA_BYTES = 10
_MAX_EXTRA = 8


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file that begins as JPEG XL, as `models.io.decode.inspect` has it."""
    header = jpegxl_header.read(data)
    height, width = header.size
    limits.check_size(height, width)
    if header.extra > _MAX_EXTRA:
        raise UnsupportedImage(f"JPEG XL of {header.extra} channels beside its colors is not opened; save it as TIFF")
    held = height * width * (_COLOR_BYTES + _EXTRA_BYTES * header.extra)
    if held > limits.max_held_bytes:
        raise ImageTooLarge(
            f"decoding this JPEG XL of {width}×{height} takes {held / 1e6:.0f} MB; the limit is"
            f" {limits.max_held_bytes / 1e6:.0f} MB: send a smaller image, or a JPEG, PNG or TIFF"
        )
    return Encoded(header.size, held, lambda: _decode(data, header, choice))


def _decode(data: bytes, header: Header, choice: Choice) -> Decoded:
    from imagecodecs import JpegxlError, jpegxl_decode

    try:
        samples: Array = jpegxl_decode(data, index=0, numthreads=1)
    except (JpegxlError, ValueError, TypeError, NotImplementedError):
        raise ImageError("the JPEG XL file is damaged or truncated; send it again") from None
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
