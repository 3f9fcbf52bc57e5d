"""Label maps as COCO's run lengths: one pass over a map gives those of all its ids.

A mask is read column after column and told as counts: zeros, ones, zeros … (the first may be 0). Compressed they are
characters that `pycocotools.mask` reads, the same that it writes.

Knows nothing of images, networks or requests.
"""

from typing import NamedTuple

import numpy as np

from models.native import bindings
from models.types import Array


class Run(NamedTuple):
    """One id of a label map.

    counts  uint32 [n], or compressed: ASCII
    """

    id: int
    pixels: int
    counts: Array | str


def run_lengths(labels: Array, *, compressed: bool = True, ignored: int | None = None) -> list[Run]:
    """Every id that a label map uint8 [H, W] holds, in ascending order; `ignored` is left out.

    Source: pycocotools 2.0, maskApi.c: rleEncode, rleToString.
    """
    found = bindings.run_lengths(labels, text=compressed, ignored=-1 if ignored is None else ignored)
    if found is None:
        return plain_run_lengths(labels, compressed=compressed, ignored=ignored)
    counts, pixels = found
    return [
        Run(i, int(pixels[i]), bytes_.decode() if compressed else np.frombuffer(bytes_, np.uint32))
        for i, bytes_ in enumerate(counts)
        if bytes_
    ]


def plain_run_lengths(labels: Array, *, compressed: bool = True, ignored: int | None = None) -> list[Run]:
    """`run_lengths` in numpy."""
    column_wise = labels.T.ravel()
    if not column_wise.size:
        return []
    starts = np.flatnonzero(np.diff(column_wise, prepend=column_wise[:1] ^ 1))
    ends, ids = np.append(starts[1:], column_wise.size), column_wise[starts]
    runs = []
    for i in np.unique(ids):
        if i == ignored:
            continue
        bounds = np.stack([starts[ids == i], ends[ids == i]], axis=1).ravel()
        if bounds[-1] < column_wise.size:
            bounds = np.append(bounds, column_wise.size)
        counts = np.diff(bounds, prepend=0)
        runs.append(Run(int(i), int(counts[1::2].sum()), _compress(counts) if compressed else counts.astype(np.uint32)))
    return runs


def _compress(counts: Array) -> str:
    """Each count, from the fourth on less the last of its kind: five bits a character, the lowest first."""
    left = counts.astype(np.int64)
    left[3:] -= counts[1:-2]
    columns, more = [], np.ones(len(left), bool)
    while more.any():
        bits = left & 31
        left = left >> 5
        following = np.where(bits & 16, left != -1, left != 0) & more
        columns.append(np.where(more, bits + 48 + 32 * following, 0).astype(np.uint8))
        more = following
    characters = np.stack(columns, axis=1)
    return characters[characters > 0].tobytes().decode()
