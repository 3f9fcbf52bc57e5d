"""The turn that metadata ask for: EXIF's orientation, or XMP's where there is none. What cannot be read asks for none.

Knows nothing of the files that metadata travel in. Source: TIFF 6.0, section 2; CIPA DC-008 (EXIF 2.32), 4.6.4.
"""

import re
import struct

_ORIENTATION = 0x0112
_KINDS = {1: "B", 3: "H", 4: "I"}
_MOST_ENTRIES, _MOST_XMP = 4096, 2**20  # that are looked through; the rest is silent
_XMP = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])\s*[\"'<]")


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """1..8 of an EXIF block, with or without its `Exif` mark, or else of an XMP packet; 1 where neither says it."""
    stated = _of_exif(exif) if exif else None
    if stated is None and xmp and (found := _XMP.search(xmp, 0, _MOST_XMP)):
        stated = int(found[1])
    return stated or 1


def _of_exif(exif: bytes) -> int | None:
    """Of the first directory; None where it is silent or cannot be read, 1 where it says what has no meaning."""
    tiff = exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")  # some writers set the mark twice
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * min(count, _MOST_ENTRIES), 12):
            tag, kind, values = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == _ORIENTATION and kind in _KINDS and values == 1:
                (turn,) = struct.unpack_from(order + _KINDS[kind], tiff, entry + 8)
                return turn if 1 <= turn <= 8 else 1
    except struct.error:
        pass
    return None
