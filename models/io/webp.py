"""WebP files to pixels by libwebp; of an animation the first frame, by Pillow.

Knows nothing of other formats. Source: RFC 9649, 2.7 (the container) and 3.4 (lossless); RFC 6386, 9.1 (VP8).
"""

import struct

import numpy as np

from models.io import exif, pillow_formats
from models.io.picture import PROFILE_NS, RESIZING_BYTES, RGB_BYTES, Channels, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, Limits
from models.types import Array

_ANIMATED, _ALPHA = 0x02, 0x10  # flags of VP8X
_MOST_CHUNKS = 32768  # an animation has one for each frame
_READ = (b"VP8X", b"VP8 ", b"VP8L", b"ICCP", b"EXIF", b"XMP ")
_CHUNK_HEAD = struct.Struct("<4sI")
_NS, _ALPHA_NS = 30, 25  # of a core, for a pixel


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file that begins as a WebP, as `models.io.decode.inspect` has it."""
    parts = _first_chunks(data)
    size, alpha = _picture(parts)
    limits.check_size(*size)
    check_bands(choice.bands, 3)
    turn = exif.orientation(parts.get(b"EXIF"), parts.get(b"XMP "))
    shown = size[::-1] if turn >= 5 else size
    extended = parts.get(b"VP8X", b"")
    if extended[:1] and extended[0] & _ANIMATED:
        return pillow_formats.first_frame(data, "WEBP", (shown[0], shown[1]), choice)
    # libwebp holds a lossless picture as 4 bytes a pixel, a lossy one as 1.5, beside ours
    working = size[0] * size[1] * max((4 + alpha) + 4 + RGB_BYTES, RESIZING_BYTES)

    def decode() -> Decoded:
        return show(Channels(_samples(data, size, alpha), parts.get(b"ICCP"), turn), choice)

    seconds = 1e-9 * size[0] * size[1] * (_NS + _ALPHA_NS * alpha + PROFILE_NS * (b"ICCP" in parts))
    return Encoded((shown[0], shown[1]), working, decode, seconds)


def _samples(data: bytes, size: tuple[int, int], alpha: bool) -> Array:
    from imagecodecs import WebpError, webp_decode

    try:
        out = np.empty((*size, 4 if alpha else 3), np.uint8)
        samples: Array = webp_decode(data, hasalpha=alpha, out=out)
    except (WebpError, ValueError):
        raise ImageError("the WebP is damaged or truncated; send it again") from None
    return samples


def size(data: bytes) -> tuple[int, int]:
    """(H, W) of a file that begins as WebP. Raises ImageError where it does not say it."""
    return _picture(_first_chunks(data))[0]


def _first_chunks(data: bytes) -> dict[bytes, bytes]:
    """The name and data of each chunk that is read here, as far as they are there; of the pixels' the beginning.

    Of two of a name the first one counts, as decoders have it.
    """
    found: dict[bytes, bytes] = {}
    at, count = 12, 0
    while at + 8 <= len(data):
        count += 1
        if count > _MOST_CHUNKS:
            raise ImageError(f"the WebP has more than {_MOST_CHUNKS} chunks: save it again")
        name, length = _CHUNK_HEAD.unpack_from(data, at)
        if name in _READ and name not in found:
            found[name] = data[at + 8 : at + 8 + (32 if name in (b"VP8 ", b"VP8L") else length)]
        at += 8 + length + length % 2
    return found


def _picture(parts: dict[bytes, bytes]) -> tuple[tuple[int, int], bool]:
    """(H, W), and whether there is transparency. Raises ImageError where the file does not say it."""
    try:
        if b"VP8X" in parts and len(parts[b"VP8X"]) >= 10:
            head = parts[b"VP8X"]
            width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (4, 7))
            return (height, width), bool(head[0] & _ALPHA)
        if b"VP8L" in parts:
            (bits,) = struct.unpack_from("<I", parts[b"VP8L"], 1)
            return (1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)), bool(bits >> 28 & 1)
        width, height = struct.unpack_from("<HH", parts[b"VP8 "], 6)
        return (height & 0x3FFF, width & 0x3FFF), False
    except (KeyError, struct.error):
        raise ImageError("the WebP is damaged or truncated: it does not say its size; send it again") from None
