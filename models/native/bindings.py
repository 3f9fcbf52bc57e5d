"""The compiled kernels of the host path (`kernels.c`, `deflate.c`), where this installation has them.

Each function answers what the numpy code of its caller would, or None where only that code can: no compiler was there
when the package was installed, or the values are not for the kernel. The interpreter's lock is free while a kernel
runs. Arrays are checked and made contiguous here; results are new arrays.

Knows nothing of files, networks or requests.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.types import Array

_VERSION = 3  # of the functions in kernels.c: a library built from another one is left alone
_TYPES: dict[str, Any] = {"a": ctypes.c_void_p, "n": ctypes.c_int64}  # an array, a number
_SIGNATURES = {
    "host_labels": "annn" + "aaan" + "aaan" + "aa",
    "host_areas": "ann" + "ann" + "aaa",
    "host_colorize": "ananna",
    "host_blend": "aanaana",
    "host_deflate": "annan",
}


class Axis(NamedTuple):
    """Where an axis's pixels lie on the grid: lower and upper neighbor int64 [n], ascending; the upper one's weight."""

    low: Array
    high: Array
    weight: Array


class Counted(NamedTuple):
    """A label map by id.

    pixels  int64 [256];  boxes  int64 [256, 4] x, y, width, height;  sums  float64 [256] of margins
    """

    pixels: Array
    boxes: Array
    sums: Array


def compiled() -> bool:
    """Whether the compiled kernels run; plain numpy does the work elsewhere."""
    return _library() is not None


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    for path in sorted(Path(__file__).parent.glob("_kernels*")):
        if path.suffix not in (".so", ".pyd", ".dylib"):
            continue
        try:
            library = ctypes.CDLL(str(path))
            if library.host_version() != _VERSION:
                continue
        except (OSError, AttributeError):  # built for another machine, or not ours
            continue
        for name, signature in _SIGNATURES.items():
            getattr(library, name).argtypes = [_TYPES[letter] for letter in signature]
        library.host_colorize.restype = library.host_blend.restype = None
        library.host_deflate.restype = ctypes.c_int64
        return library
    return None


def labels(scores: Array, down: Axis, across: Axis, ids: Array) -> Array | None:
    """The best cluster of every pixel, looked up in `ids`.

    scores   float32 [K, h, w];  ids  uint8 [K]
    returns  uint8 [H, W]; None also where a score is not finite or beyond 1e37
    """
    library = _library()
    k, h, w = scores.shape
    if library is None or not 1 <= k <= 255 or not down.low.size or not across.low.size:
        return None
    scores, ids = np.ascontiguousarray(scores, np.float32), np.ascontiguousarray(ids, np.uint8)
    out = np.empty((len(down.low), len(across.low)), np.uint8)
    failed = library.host_labels(
        _at(scores), k, h, w, *map(_at, down), len(down.low), *map(_at, across), len(across.low), _at(ids), _at(out)
    )
    return None if failed else out


def count(labels: Array, margin: Array | None) -> Counted | None:
    """Pixels, box and sum of margins of every id.

    labels   uint8 [H, W];  margin  float32 of any size that shows the same picture
    """
    library = _library()
    if library is None or labels.dtype != np.uint8:
        return None
    labels = np.ascontiguousarray(labels)
    pixels, edges, sums = np.zeros(256, np.int64), np.zeros((256, 4), np.int64), np.zeros(256)
    margin = None if margin is None else np.ascontiguousarray(margin, np.float32)
    place, mh, mw = (0, 0, 0) if margin is None else (_at(margin), *margin.shape)
    if library.host_areas(_at(labels), *labels.shape, place, mh, mw, _at(pixels), _at(edges), _at(sums)):
        return None
    edges[:, 2:] -= edges[:, :2]
    return Counted(pixels, edges, sums)


def colorize(labels: Array, colors: Array) -> Array | None:
    """uint8 [H, W, 3 or 4]: the row of `colors` uint8 [K, 3 or 4] of each of `labels` uint8 [H, W]."""
    library = _library()
    if library is None or not _inside(labels, len(colors)):
        return None
    labels, colors = np.ascontiguousarray(labels), np.ascontiguousarray(colors, np.uint8)
    out = np.empty((*labels.shape, colors.shape[1]), np.uint8)
    library.host_colorize(_at(labels), labels.size, _at(colors), *colors.shape, _at(out))
    return out


def blend(image: Array, labels: Array, keep: Array, paint: Array) -> Array | None:
    """uint8 [H, W, 3]: (image × keep + paint) >> 8, both looked up by label.

    image  uint8 [H, W, 3];  labels  uint8 [H, W];  keep  uint16 [K];  paint  uint16 [K, 3]
    """
    library = _library()
    fits = image.shape == (*labels.shape, 3) and image.dtype == np.uint8
    if library is None or not fits or not _inside(labels, len(keep)):
        return None
    image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels)
    out = np.empty_like(image)
    library.host_blend(_at(image), _at(labels), labels.size, _at(keep), _at(paint), len(keep), _at(out))
    return out


def deflate(ids: Array) -> bytes | None:
    """The zlib stream of a PNG's rows: a label map uint8 [H, W], 8 bits a pixel, each row less the one above."""
    library = _library()
    if library is None or ids.dtype != np.uint8 or not ids.size:
        return None
    ids = np.ascontiguousarray(ids)
    out = np.empty(1024 + ids.shape[0] * (1 + ids.shape[1]) * 9 // 8, np.uint8)  # memory only where it is written
    written = library.host_deflate(_at(ids), *ids.shape, _at(out), out.size)
    return out[:written].tobytes() if written else None


def _inside(labels: Array, k: int) -> bool:
    """Whether a table of k rows has one for every label."""
    return labels.dtype == np.uint8 and (labels.size == 0 or k > 255 or int(labels.max()) < k)


def _at(array: Array) -> int:
    return int(array.ctypes.data)
