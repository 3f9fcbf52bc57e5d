"""Plain JPEGs to pixels in one pass, without Pillow's image in between: the same pixels in two thirds of the time.

Knows nothing of limits, of other formats, of what to do with a file that is not plain: it says so, and Pillow judges.
"""

import struct
from typing import NamedTuple

import numpy as np

from models.types import Array

_BASELINE_OR_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # lossless, hierarchical, arithmetic
_ORIENTATION = 0x0112


class Header(NamedTuple):
    """Size of a plain JPEG in pixels."""

    height: int
    width: int


def plain_header(data: bytes) -> Header | None:
    """The header of a JPEG that every decoder reads alike; None for any other file.

    Plain is: Huffman-coded, baseline or progressive, 8 bits, gray or three components, upright, one picture, no Adobe
    marker (CMYK, YCCK, inverted inks), and an end where the file ends.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    header, at = None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body, at = data[at + 4 : at + 2 + length], at + 2 + length
        if length < 2 or marker in _OTHER_FRAMES or marker == 0xEE or at > len(data):
            return None
        if marker == 0xDA:
            return header
        if marker == 0xE1 and not _upright(body):
            return None
        if marker == 0xE2 and body.startswith(b"MPF\0"):
            return None
        if marker in _BASELINE_OR_PROGRESSIVE:
            if header or len(body) < 6 or body[0] != 8 or body[5] not in (1, 3):
                return None
            header = Header(*struct.unpack_from(">HH", body, 1))
    return None


def _upright(app1: bytes) -> bool:
    """Whether metadata ask for no turn; metadata that cannot be read are not trusted."""
    if not app1.startswith(b"Exif\0\0"):
        return b"Orientation" not in app1
    tiff = app1[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return False
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION:
                return kind == 3 and struct.unpack_from(order + "IH", tiff, entry + 4) == (1, 1)
    except struct.error:
        return False
    return True


def decode(data: bytes, header: Header) -> Array | None:
    """RGB uint8 [H, W, 3] of a file with a plain header; None where its body is damaged.

    The interpreter's lock is free meanwhile.
    """
    from imagecodecs import Jpeg8Error, jpeg8_decode

    try:
        image: Array = jpeg8_decode(data, outcolorspace="RGB")
    except Jpeg8Error:
        return None
    return image if image.shape == (header.height, header.width, 3) and image.dtype == np.uint8 else None


def encode(image: Array, quality: int) -> bytes:
    """A file's bytes, colors at full resolution: RGB uint8 [H, W, 3] or gray [H, W]. The bytes Pillow would write.

    Raises ValueError for other shapes.
    """
    from imagecodecs import jpeg8_encode

    if image.ndim != 2 and image.shape[2:] != (3,):
        raise ValueError(f"JPEG takes gray [H, W] or RGB [H, W, 3], not {list(image.shape)}; use PNG or WebP")
    return bytes(jpeg8_encode(image, level=quality, subsampling="444"))
