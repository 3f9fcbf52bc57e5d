"""All that a JPEG 2000 file says before its pixels, and what OpenJPEG would set up: tiles, precincts, code blocks.

Knows nothing of limits, of decoders. Source: ISO/IEC 15444-1, A.5 and A.6 (markers), B.5 to B.7 (resolutions,
precincts, code blocks), I.5.3 (boxes).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from models.io.boxes import boxes
from models.io.samples import ImageError, UnsupportedImage

SRGB, GRAY, SYCC, CMYK = 16, 17, 18, 12  # enumerated color spaces
_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
_MAX_PARTS = 16
_MOST_MARKERS = 16384  # of the file's header and of its tiles' parts, all together


@dataclass
class Header:
    """What a JPEG 2000 file says of its picture.

    bits, signed   of a sample; `parts` of them make a pixel, `alpha` is the number of one of them
    tiles, blocks  how many tiles there are, and how many precincts and code blocks in all of them
    subsampled     some of the parts have fewer pixels
    space          the color space's number, where it has one
    codestream     where the picture's data begin and end
    """

    height: int = 0
    width: int = 0
    bits: int = 8
    signed: bool = False
    parts: int = 0
    tiles: int = 1
    blocks: int = 0
    subsampled: bool = False
    palette: bool = False
    alpha: int | None = None
    premultiplied: bool = False
    space: int | None = None
    profile: bytes | None = None
    codestream: tuple[int, int] = (0, 0)


def read(data: bytes) -> Header:
    """The header of a JP2 file or a codestream.

    Raises ImageError where it is damaged, UnsupportedImage where bands differ.
    """
    header = Header()
    try:
        if data[:2] == b"\xff\x4f":
            header.codestream = (0, len(data))
            _read_codestream(data, header)
            return header
        for name, start, end in boxes(data, 0, len(data)):
            if name == b"jp2h":
                _read_boxes(data, start, end, header)
            elif name == b"jp2c":
                header.codestream = (start, end)
                _read_codestream(data[start:end], header)
                return header
    except (struct.error, IndexError):
        pass
    raise ImageError("the JPEG 2000 file is damaged or truncated: it does not say its size; send it again")


def _read_boxes(data: bytes, start: int, end: int, header: Header) -> None:
    for name, at, stop in boxes(data, start, end):
        if name == b"colr" and header.space is None and header.profile is None:
            if data[at] == 1:
                (header.space,) = struct.unpack_from(">I", data, at + 3)
            elif data[at] in (2, 3):
                header.profile = data[at + 3 : stop]
        elif name == b"pclr":
            header.palette = True
        elif name == b"cdef":
            for entry in range(at + 2, stop - 5, 6):
                number, kind, _ = struct.unpack_from(">HHH", data, entry)
                if kind in (1, 2):
                    header.alpha, header.premultiplied = number, kind == 2


def _read_codestream(data: bytes, header: Header) -> None:
    tile, worst, at, count = (0, 0), 0, 2, 0
    for marker, body, behind in _markers(data, at):
        at = behind
        if marker == _SIZ:
            tile = _read_size(body, header)
        worst = max(worst, _coding(marker, body, tile))
    while data[at : at + 2] == b"\xff\x90":  # each part of a tile: what it has of its own, and where the next begins
        length = int.from_bytes(data[at + 6 : at + 10], "big")
        count += 1
        for marker, body, _ in _markers(data, at + 12):
            worst, count = max(worst, _coding(marker, body, tile)), count + 1
        if count > _MOST_MARKERS:
            raise _too_many()
        if length < 14:  # 0: to the end
            break
        at += length
    header.blocks = worst * header.tiles * header.parts


def _coding(marker: int, body: bytes, tile: tuple[int, int]) -> int:
    """Precincts and code blocks of one part of a tile, where a marker says how they are cut; or 0."""
    if marker == _COD:
        return _blocks(tile, body[5:], bool(body[0] & 1))
    if marker == _COC:  # of one part alone; there are fewer than 257: its number has one byte
        return _blocks(tile, body[2:], bool(body[1] & 1))
    return 0


def _markers(data: bytes, at: int) -> Iterator[tuple[int, bytes, int]]:
    """Each marker of a header, its segment, and where the next one is; up to a tile or its data."""
    for _ in range(_MOST_MARKERS):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker in (_SOT, _SOD) or length < 2 or marker < 0xFF00:
            return
        yield marker, data[at + 4 : at + 2 + length], at + 2 + length
        at += 2 + length
    raise _too_many()


def _too_many() -> ImageError:
    return ImageError(f"the JPEG 2000 has more than {_MOST_MARKERS} markers: save it again in fewer tiles")


def _read_size(body: bytes, header: Header) -> tuple[int, int]:
    """Fills in size and samples; (H, W) of a tile."""
    right, bottom, left, top, tile_w, tile_h, tile_left, tile_top, parts = struct.unpack_from(">8IH", body, 2)
    depths = [struct.unpack_from("3B", body, 36 + 3 * n) for n in range(min(parts, _MAX_PARTS))]
    if parts > _MAX_PARTS or len({depth for depth, _, _ in depths}) > 1:
        raise UnsupportedImage(
            f"JPEG 2000 of more than {_MAX_PARTS} bands, or whose bands differ in depth, is not opened; save it as TIFF"
        )
    if not depths or not tile_w or not tile_h or tile_left > left or tile_top > top:
        raise ImageError("the JPEG 2000 file is damaged: its header contradicts itself")
    header.height, header.width, header.parts = max(0, bottom - top), max(0, right - left), parts
    header.signed, header.bits = bool(depths[0][0] & 0x80), (depths[0][0] & 0x7F) + 1
    header.subsampled = any((across, down) != (1, 1) for _, across, down in depths)
    header.tiles = -(-(right - tile_left) // tile_w) * -(-(bottom - tile_top) // tile_h)
    return min(tile_h, header.height), min(tile_w, header.width)


def _blocks(tile: tuple[int, int], coding: bytes, own_precincts: bool) -> int:
    """How many precincts and code blocks one band of a tile is cut into. `coding` begins with the number of levels."""
    levels, block_w, block_h = coding[0], (coding[1] & 15) + 2, (coding[2] & 15) + 2
    if levels > 32:
        raise ImageError("the JPEG 2000 file is damaged: its header contradicts itself")
    count = 0
    for level in range(levels + 1):
        precinct = coding[5 + level] if own_precincts else 0xFF
        precinct_w, precinct_h = precinct & 15, precinct >> 4
        height, width = (_ceil(side, 1 << levels - level) for side in tile)
        down, across = min(precinct_h, block_h), min(precinct_w, block_w)
        if level:
            down, across = min(precinct_h - 1, block_h), min(precinct_w - 1, block_w)
            blocks = 3 * _ceil(height, 2 << max(down, 0)) * _ceil(width, 2 << max(across, 0))
        else:
            blocks = _ceil(height, 1 << down) * _ceil(width, 1 << across)
        count += blocks + _ceil(height, 1 << precinct_h) * _ceil(width, 1 << precinct_w)
    return count


def _ceil(number: int, step: int) -> int:
    return -(-number // step)
