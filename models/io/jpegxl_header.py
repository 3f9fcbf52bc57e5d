"""Size, orientation, depth and channels of a JPEG XL file, bit by bit.

Knows nothing of limits, of decoders. Source: ISO/IEC 18181-1, annexes A (fields), D.1 to D.3 (size, metadata, extra
channels); 18181-2, 9 (boxes).
"""

from typing import NamedTuple

from models.io.boxes import boxes
from models.io.samples import ImageError

_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width : height
_HEAD = 4096  # bytes of the codestream that its header lies within; names of channels are what is long in it
_ALPHA = 0


class Header(NamedTuple):
    """What a JPEG XL says of its picture.

    size           (H, W) as it is shown
    bits, floats   of a sample
    extra          how many channels there are beside the colors; `alpha` is the number of one of these, from 0
    """

    size: tuple[int, int]
    orientation: int
    bits: int
    floats: bool
    extra: int
    alpha: int | None
    premultiplied: bool


class _Bits:
    """A codestream's bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._all, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def u(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ImageError("the JPEG XL file is damaged or truncated: it ends inside its header; send it again")
        value = self._all & ((1 << count) - 1)
        self._all >>= count
        return value

    def u32(self, *choices: tuple[int, int]) -> int:
        """One of four codes: a number, and how many bits are added to it."""
        base, bits = choices[self.u(2)]
        return base + self.u(bits)


def read(data: bytes) -> Header:
    """The header of a codestream or of a file of boxes. Raises ImageError."""
    bits = _Bits(_codestream(data)[2:])
    height, width = _size(bits)
    orientation, depth, floats, extra, alpha, premultiplied = 1, 8, False, 0, None, False
    if not bits.u(1):  # not everything is as usual
        if bits.u(1):
            orientation = bits.u(3) + 1
            if bits.u(1):  # the size it is meant to be printed in
                _size(bits)
            if bits.u(1):
                _preview(bits)
            if bits.u(1):
                _animation(bits)
        depth, floats = _depth(bits)
        bits.u(1)
        extra = bits.u32((0, 0), (1, 0), (2, 4), (1, 12))
        for number in range(extra):
            is_alpha, associated = _extra_channel(bits)
            if is_alpha and alpha is None:
                alpha, premultiplied = number, associated
    size = (width, height) if orientation >= 5 else (height, width)
    return Header(size, orientation, depth, floats, extra, alpha, premultiplied)


def _codestream(data: bytes) -> bytes:
    """The beginning of it, with its two bytes of magic."""
    found = data[:_HEAD]
    if data[:2] != b"\xff\x0a":
        parts = [
            data[start + (4 if name == b"jxlp" else 0) : min(end, start + _HEAD)]
            for name, start, end in boxes(data, 0, len(data))
            if name in (b"jxlc", b"jxlp")
        ]
        found = b"".join(parts[:16])[:_HEAD]
    if found[:2] != b"\xff\x0a":
        raise ImageError("the JPEG XL file is damaged: there is no picture in it; send it again")
    return found


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.u(1)

    def side() -> int:
        return 8 * (bits.u(5) + 1) if small else 1 + bits.u32((0, 9), (0, 13), (0, 18), (0, 30))

    height = side()
    ratio = _RATIOS[bits.u(3)]
    return height, height * ratio[0] // ratio[1] if ratio else side()


def _preview(bits: _Bits) -> None:
    by_eight = bits.u(1)

    def side() -> int:
        if by_eight:
            return bits.u32((16, 0), (32, 0), (1, 5), (33, 9))
        return bits.u32((1, 6), (65, 8), (321, 10), (1345, 12))

    side()
    if not bits.u(3):
        side()


def _animation(bits: _Bits) -> None:
    bits.u32((100, 0), (1000, 0), (1, 10), (1, 30))
    bits.u32((1, 0), (1001, 0), (1, 8), (1, 10))
    bits.u32((0, 0), (0, 3), (0, 16), (0, 32))
    bits.u(1)


def _depth(bits: _Bits) -> tuple[int, bool]:
    if not bits.u(1):
        return bits.u32((8, 0), (10, 0), (12, 0), (1, 6)), False
    depth = bits.u32((32, 0), (16, 0), (24, 0), (1, 6))
    bits.u(4)
    return depth, True


def _extra_channel(bits: _Bits) -> tuple[bool, bool]:
    """Whether it is alpha, and whether the colors were multiplied by it."""
    if bits.u(1):
        return True, False
    kind = bits.u32((0, 0), (1, 0), (2, 4), (18, 6))
    _depth(bits)
    bits.u32((0, 0), (3, 0), (4, 0), (1, 3))
    bits.u(8 * bits.u32((0, 0), (0, 4), (16, 5), (48, 10)))  # its name
    associated = kind == _ALPHA and bool(bits.u(1))
    if kind == 2:  # a spot color: four halves
        bits.u(64)
    if kind == 5:  # of a sensor's color filter
        bits.u32((1, 0), (0, 2), (3, 4), (19, 8))
    return kind == _ALPHA, associated
