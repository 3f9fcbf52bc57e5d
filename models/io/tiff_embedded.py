"""What a TIFF's segments say of themselves where they are JPEG, JPEG 2000, WebP or LERC: their size and samples.

Knows nothing of directories.
"""

import re
import struct

from models.io import jpeg2000, jpeg2000_header, jpeg_header, webp
from models.io.samples import ImageError, ImageTooLarge, Limits


def has_picture(tables: bytes) -> bool:
    """Whether JPEG tables are more than that."""
    try:
        return bool(jpeg_header.read(tables))
    except ImageError:
        return False


def stated(codec: str, data: bytes, limits: Limits) -> tuple[int, int, int | None]:
    """(H, W) that a segment's own header states, and its samples where it says them.

    Raises ImageError, UnsupportedImage.
    """
    if codec == "jpeg":
        frame = jpeg_header.read(data)
        return frame.height, frame.width, frame.parts
    if codec == "jpeg2k":
        header = jpeg2000_header.read(data)
        if jpeg2000.table_bytes(header) > limits.max_held_bytes:
            raise ImageTooLarge("a piece of this TIFF's JPEG 2000 is cut too fine; write it with Deflate")
        return header.height, header.width, header.parts
    return (*webp.size(data), None) if codec == "webp" else _lerc_size(data)


def _lerc_size(data: bytes) -> tuple[int, int, int | None]:
    """Source: Esri, LERC2's header: version, then from version 3 on a checksum, rows, columns, and from 4 on depth."""
    if not (found := re.match(rb"Lerc2 (.{4})", data, re.DOTALL)):
        raise ImageError("the TIFF is damaged: a piece of LERC has no header")
    (version,) = struct.unpack("<i", found[1])
    height, width = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)
    return height, width, struct.unpack_from("<i", data, 22)[0] if version >= 4 else None
