"""JPEG files to pixels by libjpeg-turbo (JPEG-LS by CharLS), and pixels to JPEG files.

The decoder writes into an array of the header's size, or the file is refused. Knows nothing of other formats.
"""

import math

import numpy as np

from models.io import apart, jpeg_header
from models.io.color import converter
from models.io.jpeg_header import Header
from models.io.picture import PROFILE_NS, RESIZING_BYTES, RGB_BYTES, Channels, all_of_a_byte, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, Limits, UnsupportedImage
from models.types import Array

_NAMES = {
    jpeg_header.BASELINE: "JPEG",
    jpeg_header.EXTENDED: "JPEG",
    jpeg_header.PROGRESSIVE: "progressive JPEG",
    jpeg_header.LOSSLESS: "lossless JPEG",
    jpeg_header.ARITHMETIC: "arithmetic-coded JPEG",
    jpeg_header.ARITHMETIC_PROGRESSIVE: "arithmetic-coded JPEG",
    jpeg_header.JPEG_LS: "JPEG-LS",
}
_PLAIN = (jpeg_header.BASELINE, jpeg_header.EXTENDED, jpeg_header.PROGRESSIVE)
_EOI = b"\xff\xd9"
# Of a core, for a pixel: to decode it, for each scan of a progressive one, for more than writers make, for CMYK
_NS, _SCAN_NS, _MORE_NS, _INKS_NS = 10, 3, 9, 40
_USUAL_SCANS = 12
_ALWAYS_BYTES = 32 * 2**20  # that a process for CharLS is granted for any picture
_JPEG_LS_SPEED = 16_000_000  # samples a second; CharLS does 50 million

# Three that differ in every bit that a picture without its end may lack: noise, its opposite, noise behind each of the
# marks of a restart.
_NOISE = np.random.default_rng(0).integers(1, 255, 4096, dtype=np.uint8)
_BEHIND = (
    _NOISE.tobytes(),
    (255 - _NOISE).tobytes(),
    b"".join(bytes((255, 0xD0 + n % 8)) + _NOISE[64 * n : 64 * n + 64].tobytes() for n in range(16)),
)


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file that begins with a start marker, as `models.io.decode.inspect` has it."""
    header = jpeg_header.read(data)
    limits.check_size(header.height, header.width)
    name, deep = _NAMES.get(header.process), header.bits > 8
    if name is None or header.parts not in ((1, 3) if deep or header.process == jpeg_header.JPEG_LS else (1, 3, 4)):
        raise UnsupportedImage(
            f"this is {name or 'hierarchical or lossless arithmetic-coded JPEG'} of {header.parts} channels of"
            f" {header.bits} bits, which is not opened; save it as baseline JPEG or as PNG"
        )
    check_bands(choice.bands, 1 if header.parts == 1 else 3)
    samples = 2 * header.parts if deep else max(RGB_BYTES, header.parts)
    coefficients = 2 * header.parts if header.holds_coefficients else 0
    # Copies beside the picture: those of a process apart, those that are compared
    beside = 4 if header.process == jpeg_header.JPEG_LS else 0 if header.ended else 2
    working = max((1 + beside) * samples + max(coefficients, RGB_BYTES), RESIZING_BYTES)
    turned = header.orientation >= 5
    size = (header.width, header.height) if turned else (header.height, header.width)
    pixels = header.height * header.width
    return Encoded(size, working * pixels, lambda: _decode(data, header, choice), 1e-9 * pixels * _pixel_ns(header))


def _pixel_ns(header: Header) -> float:
    """Nanoseconds of a core that a pixel takes, about; infinite for what is not plain: its codes bound no time."""
    if header.process not in _PLAIN or header.bits > 8 or not header.ended:
        return math.inf
    scans = header.scans if header.holds_coefficients else 0
    scans_ns = _SCAN_NS * scans + _MORE_NS * max(0, scans - _USUAL_SCANS)
    inks = _INKS_NS if header.parts == 4 else 0
    return _NS + scans_ns + inks + (PROFILE_NS if header.profile else 0)


def _decode(data: bytes, header: Header, choice: Choice) -> Decoded:
    if _plain(header) and not choice.bands:
        return Decoded(_samples(data, header))
    channels = Channels(_samples(data, header), header.profile, header.orientation, bits=header.bits)
    if header.parts == 4:
        channels.inks = True
        np.subtract(255, channels.samples, out=channels.samples)  # Adobe's way, which all others took over
    return show(channels, choice)


def _plain(header: Header) -> bool:
    """Whether what the decoder makes of it is what is shown: no turn, profile, inks or deep samples to look after."""
    said: list[str] = []
    upright = header.orientation == 1 and header.bits == 8 and header.process in _PLAIN
    if header.profile is None:
        return upright and header.parts in (1, 3)
    return upright and header.parts == 3 and converter(header.profile, "RGB", said) is None and not said


def _samples(data: bytes, header: Header) -> Array:
    """The picture's channels: RGB for 8 bits, gray where its profile counts, inks of CMYK.

    The interpreter's lock is free meanwhile. Raises ImageError where data are damaged, or are missing.
    """
    if header.process == jpeg_header.JPEG_LS:
        return all_of_a_byte(jpeg_ls(data, header), header.bits)
    if header.ended:
        whole = data if header.end == len(data) - 2 else data[: header.end] + _EOI
        return all_of_a_byte(_decoded(whole, header), header.bits)
    there = data[: header.end].rstrip(b"\xff")
    image = _decoded(there + _EOI, header)
    if not header.complete or any((_decoded(there + noise + _EOI, header) != image).any() for noise in _BEHIND):
        raise ImageError("the JPEG is truncated: the end of its picture is missing; send the whole file")
    return all_of_a_byte(image, header.bits)


def _empty(header: Header, parts: int) -> Array:
    shape = (header.height, header.width, parts) if parts > 1 else (header.height, header.width)
    return np.empty(shape, np.uint8 if header.bits <= 8 else np.uint16)


def _decoded(data: bytes, header: Header) -> Array:
    from imagecodecs import Jpeg8Error, jpeg8_decode

    kept, colors = None, {1: "GRAYSCALE", 3: "RGB", 4: "CMYK"}[header.parts]
    if header.process == jpeg_header.LOSSLESS:
        kept = colors  # the samples as they are: others than RGB would lose some
    elif header.parts == 1 and header.bits == 8 and header.profile is None:
        colors = "RGB"  # the decoder repeats the gray: faster than numpy
    out = _empty(header, 3 if colors == "RGB" else header.parts)
    try:
        image: Array = jpeg8_decode(data, colorspace=kept, outcolorspace=colors, out=out)
    except (Jpeg8Error, ValueError, NotImplementedError):
        if header.process == jpeg_header.LOSSLESS or header.bits not in (8, 12):
            raise UnsupportedImage(
                f"this is {_NAMES[header.process]} of {header.bits} bits, damaged or of a kind that is not opened;"
                " save it as PNG"
            ) from None
        raise ImageError("the JPEG is damaged: its pixels cannot be decoded; send the file again") from None
    return image


def jpeg_ls(data: bytes, header: Header) -> Array:
    """The samples of a JPEG-LS with this header. Raises ImageError, ImageTooLarge."""
    if _EOI not in data[-64:]:
        raise ImageError("the JPEG-LS file is truncated: it has no end; send the whole file")
    pixels = header.height * header.width
    granted_bytes = 4 * header.parts * (1 if header.bits <= 8 else 2) * pixels + _ALWAYS_BYTES
    samples = apart.decode(data, "JPEG-LS", granted_bytes, 2 + header.parts * pixels // _JPEG_LS_SPEED)
    if samples.shape[:2] != (header.height, header.width) or samples.size != pixels * header.parts:
        raise ImageError("the JPEG-LS file is damaged: it states two sizes")
    return samples


def encode(image: Array, quality: int) -> bytes:
    """A file's bytes, colors at full resolution: RGB uint8 [H, W, 3] or gray [H, W]. The bytes Pillow would write.

    Raises ValueError for other shapes.
    """
    from imagecodecs import jpeg8_encode

    if image.ndim != 2 and image.shape[2:] != (3,):
        raise ValueError(f"JPEG takes gray [H, W] or RGB [H, W, 3], not {list(image.shape)}; use PNG or WebP")
    return bytes(jpeg8_encode(image, level=quality, subsampling="444"))
