"""Label maps and masks to PNGs, faster and no larger than a general writer makes them.

Knows nothing of clusters or photos: ids and colors in, a file's bytes out.
"""

import struct

import numpy as np
from zlib_ng import zlib_ng

from models.types import Array

_GRAY, _RGB, _PALETTE = 0, 2, 3  # color types
_UP = 2  # the filter: each byte less the one above it
_STRIP = 2**19  # bytes filtered at once: they are compressed while a core's cache still has them


def encode_palette(ids: Array, colors: Array, alpha: Array | None = None) -> bytes:
    """A PNG of color type 3 with 8 bits a pixel: the value of a pixel is its id.

    ids    uint8 [H, W];  colors  uint8 [K, 3], 1 to 256 of them
    alpha  uint8 [K]: opacity of each color, 255 where None

    Source: PNG specification, third edition (W3C), §5, §9 and §11.3.1.
    """
    palette = (b"PLTE", colors.astype(np.uint8).tobytes())
    opacity = () if alpha is None else ((b"tRNS", alpha.astype(np.uint8).tobytes()),)
    return _file(ids, _PALETTE, palette, *opacity)


def encode_gray(values: Array) -> bytes:
    """A PNG of color type 0, of few different uint8 or uint16 [H, W]: a mask, or ids as they are."""
    if values.dtype == np.uint8:
        return _file(values, _GRAY)
    height, width = values.shape  # the more significant byte comes first: §7.1
    return _file(values.astype(">u2").view(np.uint8).reshape(height, width, 2), _GRAY, bits=16)


def encode_rgb(image: Array) -> bytes:
    """A PNG of color type 2 with 8 bits a channel, of few different uint8 [H, W, 3]."""
    return _file(image, _RGB)


def _file(values: Array, color: int, *more: tuple[bytes, bytes], bits: int = 8) -> bytes:
    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    data = _deflate(values.reshape(height, -1))
    chunks = [(b"IHDR", head), *more, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(tag, body) for tag, body in chunks)


def _chunk(tag: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib_ng.crc32(body, zlib_ng.crc32(tag)))


def _deflate(ids: Array) -> bytes:
    """The rows as a zlib stream, each a byte that names the filter, then every id less the one above.

    Regions differ from the row above at their edges only; what is left between are runs of zeros, and runs are all that
    is looked for: a sixth of the time of zlib's search, for at most a twentieth more bytes.
    """
    height, width = ids.shape
    step = max(1, _STRIP // (1 + width))
    rows = np.empty((min(step, height), 1 + width), np.uint8)
    rows[:, 0] = _UP
    rows[:1, 1:] = ids[:1]  # there is none above the first
    stream = zlib_ng.compressobj(6, zlib_ng.DEFLATED, zlib_ng.MAX_WBITS, zlib_ng.DEF_MEM_LEVEL, zlib_ng.Z_RLE)
    packed = []
    for start in range(0, height, step):
        first, stop = max(start, 1), min(start + step, height)
        np.subtract(ids[first:stop], ids[first - 1 : stop - 1], out=rows[first - start : stop - start, 1:])
        packed.append(stream.compress(rows[: stop - start].data))
    return b"".join([*packed, stream.flush()])
