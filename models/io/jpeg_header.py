"""All that a JPEG says before its pixels, read as libjpeg reads it: marker by marker, to the end of the picture.

Knows nothing of limits, of decoders. Source: ITU-T T.81: markers, B.1.1.3; frames, B.2.2; scans, B.2.3; progression,
G.1.1.1.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.io import exif
from models.io.samples import ImageError
from models.types import Array

BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC2, 0xC3, 0xF7
ARITHMETIC, ARITHMETIC_PROGRESSIVE = 0xC9, 0xCA
_FRAMES = (*(set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}), JPEG_LS)
_SOI, _EOI, _SOS, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xEE
_SCANNED = 0  # no marker: the end of a scan's data
_ALONE = (0x01, *range(0xD0, 0xD8))  # TEM and RST0..7 have no segment
_MARKER = re.compile(rb"\xff[^\0\xff]")  # what stops a reader between segments
_SCAN_END = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # and inside a scan
_MAX_SCANS = 100  # writers make about ten; each costs a pass over all coefficients, however few bytes it has
_MOST_MARKERS = 4096  # cameras write dozens; metadata of all that a file may have fill 512 segments
_AT_ONCE = 2**18  # bytes that are searched at once: other threads run in between
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"


@dataclass
class Header:
    """What a JPEG says of itself.

    process      the marker of its frame
    bits         of a sample; `parts` samples make a pixel
    end          where the data of the picture end, its end marker not counted
    ended        there is such a marker
    complete     the scans that are there state every coefficient to its last bit
    """

    process: int
    height: int
    width: int
    bits: int
    parts: int
    end: int = 0
    ended: bool = False
    complete: bool = False
    scans: int = 0
    orientation: int = 1
    profile: bytes | None = None

    @property
    def holds_coefficients(self) -> bool:
        """The decoder has all of them in memory until the last scan."""
        return self.process in (PROGRESSIVE, ARITHMETIC_PROGRESSIVE) or self.scans > 1


def read(data: bytes) -> Header:
    """The header of a file that begins with a start marker.

    Raises ImageError where there is none, where it says two things, and where it asks for work without end.
    """
    header: Header | None = None
    stated: dict[int, Array] = {}
    metadata: dict[str, bytes] = {}
    profile: dict[int, bytes] = {}
    for marker, body, behind in _segments(data):
        if marker in _FRAMES:
            if header:
                raise ImageError("the JPEG is damaged: it states its size twice")
            header = _frame(marker, body)
            if marker == JPEG_LS:  # its scans are written in another way
                return header
        elif marker == _SOS:
            if header is None:
                raise ImageError("the JPEG is damaged: its pixels come before its size")
            header.scans += 1
            if header.scans > _MAX_SCANS:
                raise ImageError(f"the JPEG has more than {_MAX_SCANS} scans: save it again, baseline")
            whole = header.process in (BASELINE, EXTENDED) and len(body) == 4 + 2 * header.parts
            if whole and body[0] == header.parts and data.endswith(b"\xff\xd9"):
                header.ended, header.end, header.complete = True, len(data) - 2, True  # decoders read this scan alone
                break
            _note_scan(header, body, stated)
        elif marker == _SCANNED and header:
            header.end = behind
        elif marker == _EOI and header and header.scans:
            header.ended, header.end = True, behind - 2
        elif marker == _APP1 and body.startswith(b"Exif\0"):
            metadata.setdefault("exif", body)
        elif marker == _APP1 and body.startswith(_XMP):
            metadata.setdefault("xmp", body)
        elif marker == _APP2 and body.startswith(_ICC) and len(body) > 14:
            profile[body[12]] = body[14:]
    if header is None or not header.scans:
        raise ImageError("the JPEG is damaged or truncated: it ends before its pixels begin")
    header.complete |= len(stated) == header.parts and not any(bits.any() for bits in stated.values())
    header.orientation = exif.orientation(metadata.get("exif"), metadata.get("xmp"))
    header.profile = b"".join(profile[n] for n in sorted(profile)) or None
    return header


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Each marker, its segment without its length, and where that ends; up to the end marker, if any.

    After a scan's marker comes _SCANNED, with the place where the scan's data end.

    Raises ImageError where a second picture begins inside the first.
    """
    at, count = 2, 0
    while True:
        if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"", b"\0", b"\xff"):
            marker, at = data[at + 1], at + 2  # where it stands in nearly all files
        elif (found := _search(_MARKER, data, at)) is not None:
            marker, at = data[found + 1], found + 2
        else:
            return
        count += 1
        if count > _MOST_MARKERS:
            raise ImageError(f"the JPEG has more than {_MOST_MARKERS} segments: save it again, without its metadata")
        if marker == _SOI:
            raise ImageError("the JPEG is damaged: a second one begins inside it")
        if marker == _EOI:
            yield marker, b"", at
            return
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            return
        body, at = data[at + 2 : at + length], at + length
        yield marker, body, at
        if marker == _SOS:
            end = _search(_SCAN_END, data, at)
            at = len(data) if end is None else end
            yield _SCANNED, b"", at


def _search(pair: re.Pattern[bytes], data: bytes, at: int) -> int | None:
    """Where two bytes of this pattern begin, from an offset on."""
    for start in range(at, len(data), _AT_ONCE):
        if found := pair.search(data, start, start + _AT_ONCE + 1):
            return found.start()
    return None


def _frame(marker: int, body: bytes) -> Header:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise ImageError("the JPEG is damaged: the segment of its size has another length than it says")
    bits, height, width, parts = struct.unpack_from(">BHHB", body)
    return Header(marker, height, width, bits, parts)


def _note_scan(header: Header, body: bytes, stated: dict[int, Array]) -> None:
    """Of each component, per coefficient: how many of its lowest bits no scan has stated yet."""
    parts = body[0] if body else 0
    if not 1 <= parts <= 4 or len(body) != 4 + 2 * parts:
        raise ImageError("the JPEG is damaged: the segment before its pixels has another length than it says")
    first, last, bits = body[-3], body[-2], body[-1] & 15
    if header.process not in (PROGRESSIVE, ARITHMETIC_PROGRESSIVE):
        first, last, bits = 0, 63, 0
    for component in body[1 : 1 + 2 * parts : 2]:
        stated.setdefault(component, np.full(64, 16, np.uint8))[first : last + 1] = bits
