"""Files of a folder that are copies of each other, byte for byte.

Knows nothing of pixels: two pictures that look alike are another matter. Only files of equal size are opened, first two
small pieces of each, then whole those whose pieces are equal.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable

import numpy as np

from training.data.images import Images, evenly

MOST_GROUPS = 100  # that are told
_MOST_OPENED = 20_000  # files; of more of equal size, so many drawn evenly
_PIECE = 4096  # bytes, in the middle and at the end: where compressed pictures differ


def duplicates(images: Images) -> list[list[str]]:
    """Names of the files that are equal, the first 100 groups of two or more, in the order of the images."""
    _, which, counts = np.unique(images.sizes, return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(counts[which] > 1).tolist()
    alike = [candidates[i] for i in evenly(len(candidates), _MOST_OPENED)]
    close = _split(alike, lambda i: _pieces(images, i))
    groups = [group for same in close for group in _split(same, lambda i: _whole(images, i))]
    return [[images.name(i) for i in group] for group in sorted(groups)[:MOST_GROUPS]]


def _split(places: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Those of which several have one key; a file that cannot be read is equal to none."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for i in places:
        try:
            found[key(i)].append(i)
        except OSError:
            continue
    return [group for group in found.values() if len(group) > 1]


def _pieces(images: Images, i: int) -> tuple[int, bytes, bytes]:
    size = int(images.sizes[i])
    with images.paths[i].open("rb") as file:
        file.seek(size // 2)
        middle = file.read(_PIECE)
        file.seek(max(0, size - _PIECE))
        return size, middle, file.read(_PIECE)


def _whole(images: Images, i: int) -> bytes:
    with images.paths[i].open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
