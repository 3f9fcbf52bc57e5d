"""Label Studio's brush strokes: a mask as runs of bytes, packed into bits.

The bits of its `rle`: how many values there are (32), the size of one less 1 (5: they are bytes), the sizes of lengths
less 1 (4 for each of 3, 4, 8 and 16), then packets: whether it is a run (1), which size its length has (2), the length
less 1, the value. The values are a mask's pixels row by row, 255 or 0 in each of four channels. Behind the last packet
come 1 to 8 zeros, to a whole byte.

Knows nothing of HTTP, of clusters' names, of images.
"""

import numpy as np

from models.native import bindings
from models.types import Array

_CHANNELS = 4
_LENGTH_BITS = np.array([3, 4, 8, 16])
_LONGEST = 2**16
_MOST_PX = 2**30  # whose values the count has room for


def strokes(labels: Array) -> dict[int, Array]:
    """The brush strokes of every id of a label map uint8 [H, W], each uint8 [bytes].

    Raises ValueError for a map that is empty or has 2³⁰ pixels or more.
    """
    if not 0 < labels.size < _MOST_PX:
        raise ValueError(f"brush strokes of {labels.size} pixels; 1 to {_MOST_PX - 1} can be written")
    found = bindings.brush(labels)
    if found is None:
        found = {int(i): plain_stroke(labels == i) for i in np.unique(labels)}
    return found


def plain_stroke(mask: Array) -> Array:
    """The brush stroke of a mask bool [H, W] in numpy."""
    flat = np.ascontiguousarray(mask).ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    values = np.where(flat[starts], 255, 0)
    lengths = np.diff(np.append(starts, flat.size)) * _CHANNELS
    pieces = -(-lengths // _LONGEST)  # packets of each run
    last = np.cumsum(pieces) - 1
    values, whole = np.repeat(values, pieces), np.full(int(pieces.sum()), _LONGEST)
    whole[last] = lengths - (pieces - 1) * _LONGEST
    size = np.searchsorted([8, 16, 256], whole)
    bits = _LENGTH_BITS[size]
    codes = (((4 + size) << bits | whole - 1) << 8 | values).astype(">u4")
    spread = np.unpackbits(codes.view(np.uint8).reshape(-1, 4), axis=1)
    used = np.arange(32) >= (32 - (11 + bits))[:, None]
    head = np.unpackbits(np.array([flat.size * _CHANNELS, (7 << 16 | 0x237F) << 11], ">u4").view(np.uint8))[:53]
    packed = np.concatenate([head, spread[used]])
    return np.packbits(np.append(packed, np.zeros(8 - len(packed) % 8, np.uint8)))
