"""Size, turn and color profile of the primary picture of a HEIC or AVIF file, box by box.

libheif and libavif read these files where they can do no harm (`models.io.apart`): this is what is known before.
Knows nothing of limits, of decoders. Source: ISO/IEC 14496-12, 8.11 and 12.1.5; ISO/IEC 23008-12, 6.5 and 9.3.
"""

import struct
from typing import NamedTuple

import numpy as np

from models.io.boxes import boxes, inside
from models.io.samples import ImageError, UnsupportedImage, upright

_MOST_ITEMS = 16384  # each tile of a picture is one


class Header(NamedTuple):
    """What a file says of its primary picture.

    size         (H, W) as it is shown
    orientation  EXIF's 1..8, the same turn as the file's own
    profile      ICC's
    code_points  of the colors: primaries and transfer characteristics
    """

    size: tuple[int, int]
    orientation: int
    profile: bytes | None
    code_points: tuple[int, int] | None


def read(data: bytes, name: str) -> Header:
    """The header of a file of the format `name`. Raises ImageError, UnsupportedImage where it has no still picture."""
    try:
        for start, end in inside(data, 0, len(data), b"meta"):
            properties = _primary(data, start + 4, end)
            if b"ispe" in properties:
                return _header(properties)
    except (struct.error, IndexError, ZeroDivisionError):
        raise ImageError(f"the {name} file is damaged or truncated; send it again") from None
    if any(box == b"moov" for box, _, _ in boxes(data, 0, len(data))):
        raise UnsupportedImage(f"this {name} file is a sequence without a still picture; send a frame as JPEG or PNG")
    raise ImageError(f"the {name} file is damaged or truncated: it does not say its size; send it again")


def _primary(data: bytes, start: int, end: int) -> dict[bytes, bytes]:
    """The primary picture's properties by their names; of its colors a profile is `prof`, code points are `nclx`."""
    ((at, _),) = list(inside(data, start, end, b"pitm"))[:1] or [(end, end)]
    primary = int.from_bytes(data[at + 4 : at + (8 if data[at] else 6)], "big")
    kept = [
        (name, data[begin:stop])
        for first, last in inside(data, start, end, b"iprp", b"ipco")
        for name, begin, stop in boxes(data, first, last)
    ]
    found: dict[bytes, bytes] = {}
    for at, stop in inside(data, start, end, b"iprp", b"ipma"):
        for number in _associated(data[at:stop], primary):
            name, body = kept[number - 1]
            if name == b"colr" and body[:4] in (b"prof", b"rICC"):
                name, body = b"prof", body[4:]
            elif name == b"colr":
                name, body = body[:4], body[4:]
            found.setdefault(name, body)
    return found


def _associated(body: bytes, item: int) -> list[int]:
    """The numbers of an item's properties, from 1, of an ipma box."""
    item_code, code, mask = ">I" if body[0] else ">H", *(("H", 0x7FFF) if body[3] & 1 else ("B", 0x7F))
    (count,) = struct.unpack_from(">I", body, 4)
    if count > _MOST_ITEMS:
        raise ImageError(f"the file has {count} items, and at most {_MOST_ITEMS} are read: save it again")
    at = 8
    for _ in range(count):
        (number,) = struct.unpack_from(item_code, body, at)
        at += struct.calcsize(item_code)
        properties = f">{body[at]}{code}"
        if number == item:
            return [one & mask for one in struct.unpack_from(properties, body, at + 1) if one & mask]
        at += 1 + struct.calcsize(properties)
    return []


def _header(properties: dict[bytes, bytes]) -> Header:
    width, height = struct.unpack_from(">II", properties[b"ispe"], 4)
    if b"clap" in properties:
        across, of, down, per = struct.unpack_from(">IIII", properties[b"clap"])
        width, height = min(width, across // of), min(height, down // per)
    turns = properties.get(b"irot", b"\0")[0] & 3
    mirror = properties[b"imir"][0] & 1 if b"imir" in properties else None
    size = (width, height) if turns % 2 else (height, width)
    colors = properties.get(b"nclx", b"")
    code_points = struct.unpack_from(">HH", colors) if len(colors) >= 4 else None
    return Header(size, _as_exif(turns, mirror), properties.get(b"prof"), code_points)


def _as_exif(turns: int, mirror: int | None) -> int:
    """The orientation that does what quarter turns to the left and a mirror do: 0 swaps top and bottom, 1 the sides."""
    corners = np.arange(4).reshape(2, 2)
    shown = np.rot90(corners, turns)
    if mirror is not None:
        shown = np.flip(shown, axis=mirror)
    return next(exif for exif in range(1, 9) if (upright(corners, exif) == shown).all())
