"""Label maps to palette PNGs, faster and no larger than a general writer makes them.

Knows nothing of clusters or photos: ids and colors in, a file's bytes out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np

from models.native import bindings
from models.types import Array

Deflate = Callable[[Array], bytes | None]

_UP = 2  # the filter: each byte less the one above it


def encode_palette(ids: Array, colors: Array) -> bytes:
    """A PNG of color type 3 with 8 bits a pixel: the value of a pixel is its id.

    ids  uint8 [H, W];  colors  uint8 [K, 3], 1 to 256 of them

    Source: PNG specification, third edition (W3C), §5 and §9.
    """
    height, width = ids.shape
    size = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", size),
        (b"PLTE", colors.astype(np.uint8).tobytes()),
        (b"IDAT", bindings.deflate(ids) or plain_deflate(ids)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*chunks, strict=True)))


def _chunk(tag: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(tag)))


def plain_deflate(ids: Array) -> bytes:
    """`host.deflate` by Python's zlib, in a few bytes more or less.

    Regions differ from the row above at their edges only; what is left between are runs of zeros.
    """
    rows = np.empty((ids.shape[0], ids.shape[1] + 1), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = ids[0]
    np.subtract(ids[1:], ids[:-1], out=rows[1:, 1:])
    stream = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return stream.compress(rows.data) + stream.flush()
