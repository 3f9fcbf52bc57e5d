"""The boxes that JPEG 2000, JPEG XL, AVIF and HEIC files are made of.

Knows nothing of what is in them. Source: ISO/IEC 15444-1, I.4; ISO/IEC 14496-12, 4.2.
"""

from collections.abc import Iterator

from models.io.samples import ImageError

_MOST_BOXES = 8192  # beside each other; a picture of many tiles has one for each of them


def boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each box between two offsets, and where its content begins and ends, never behind `end`.

    Raises ImageError where there are too many.
    """
    count = 0
    while at + 8 <= end:
        count += 1
        if count > _MOST_BOXES:
            raise ImageError(f"the file has more than {_MOST_BOXES} boxes beside each other: save it again")
        length, name, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        stop = end if length == 0 else min(at + length, end)  # 0: to the end
        if stop < at + head:
            return
        yield name, at + head, stop
        at = stop


def inside(data: bytes, at: int, end: int, *path: bytes) -> Iterator[tuple[int, int]]:
    """Where the content of each box begins and ends to which this path of names leads."""
    for name, start, stop in boxes(data, at, end):
        if name == path[0]:
            if len(path) == 1:
                yield start, stop
            else:
                yield from inside(data, start, stop, *path[1:])
