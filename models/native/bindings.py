"""The compiled kernels (the C files beside this one), where this installation has them.

Each function answers what the numpy code of its caller would, or None where only that code can: no compiler was there
when the package was installed, or the values are not for the kernel. The interpreter's lock is free while a kernel
runs, but for a few microseconds' work. Arrays are checked and made contiguous here; results are new arrays.

Knows nothing of files, networks or requests.
"""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.types import Array

_VERSION = 10  # of the functions in the C files: a library built from others is left alone
_TYPES: dict[str, Any] = {"a": ctypes.c_void_p, "n": ctypes.c_int64, "d": ctypes.c_double}  # an array, numbers
_SIGNATURES = {
    "tessera_labels": "annn" + "aaan" + "aaan" + "a",
    "tessera_margin": "aannnn" + "aaan" + "aaan" + "daaa",
    "tessera_count": "ann" + "ann" + "aaa",
    "tessera_blend": "aanaana",
    "tessera_guided_labels": "annn" + "aaan" + "aaan" + "aa",
    "tessera_histogram16": "ana",
    "tessera_lookup16": "anaa",
    "tessera_finite": "an",
    "tessera_felzenszwalb": "ann" + "an" + "aan" + "a",
    "tessera_clahe": "annda",
    "tessera_brush": "anaa",
    "tessera_run_lengths": "annnn" + "aaa",
    "tessera_release": "an",
    "tessera_erase_specks": "annnna",
    "tessera_regions": "ann" + "ann" + "nnn" + "aa",
}
_BRIEF = 2**17  # floats that are looked through in less time than giving the interpreter's lock away and back may take


class Axis(NamedTuple):
    """Where an axis's pixels lie on the grid: lower and upper neighbor int64 [n], ascending; the upper one's weight."""

    low: Array
    high: Array
    weight: Array


class Ranked(NamedTuple):
    """How clearly each pixel's cluster won: margin float32 [H, W]; ids of the best and the second one, uint8 [H, W]."""

    margin: Array
    best: Array
    second: Array


class Rings(NamedTuple):
    """Regions of a label map, and what goes around them.

    points  int32 [n, 2]: corners x, y, ring after ring, each closed
    rings   int64 [r, 2]: each one's region and first point; a region's outline comes before its holes
    ids     int32 [m];  pixels  int64 [m];  sums  float64 [m] of margins: by region
    """

    points: Array
    rings: Array
    ids: Array
    pixels: Array
    sums: Array


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
            if library.tessera_version() != _VERSION:
                continue
        except (OSError, AttributeError):  # built for another machine, or not ours
            continue
        for name, signature in _SIGNATURES.items():
            getattr(library, name).argtypes = [_TYPES[letter] for letter in signature]
        library.tessera_blend.restype = library.tessera_lookup16.restype = library.tessera_release.restype = None
        return library
    return None


def labels(scores: Array, down: Axis, across: Axis) -> Array | None:
    """The best cluster of every pixel.

    scores   float32 [K, h, w]
    returns  uint8 [H, W]; None also where a score is not finite or beyond 1e37
    """
    library = _library()
    k, h, w = scores.shape
    if library is None or not 1 <= k <= 255 or not down.low.size or not across.low.size:
        return None
    scores = np.ascontiguousarray(scores, np.float32)
    out = np.empty((len(down.low), len(across.low)), np.uint8)
    failed = library.tessera_labels(_at(scores), k, h, w, *_axis(down), *_axis(across), _at(out))
    return None if failed else out


def margin(scores: Array, products: Array | None, down: Axis, across: Axis, least: float = 0.0) -> Array | None:
    """Best less second-best similarity of every pixel, `least` to 1; of a lone map, how alike it is.

    scores    float32 [K, h, w]
    products  float32 [5, h, w] of neighbors' codes, or [1, h, w] where every pixel is one place of the grid
              (`models.assign`); None: scores are compared as they are
    returns   float32 [H, W]; None also where a value is not finite or beyond 1e27
    """
    found = np.empty((len(down.low), len(across.low)), np.float32)
    return found if _rank(scores, products, down, across, least, found) else None


def ranked(scores: Array, products: Array | None, down: Axis, across: Axis) -> Ranked | None:
    """`margin`, and which two clusters it is between."""
    size = len(down.low), len(across.low)
    found = Ranked(np.empty(size, np.float32), np.empty(size, np.uint8), np.empty(size, np.uint8))
    return found if _rank(scores, products, down, across, 0.0, *found) else None


def _rank(
    scores: Array, products: Array | None, down: Axis, across: Axis, least: float, margin: Array, *ids: Array
) -> bool:
    """Fills a margin map, and two maps of ids. False where it did not."""
    library = _library()
    k, h, w = scores.shape
    if library is None or not 1 <= k <= 255 or not margin.size:
        return False
    scores = np.ascontiguousarray(scores, np.float32)
    products = None if products is None else np.ascontiguousarray(products, np.float32)
    of = _at(scores), 0 if products is None else _at(products), bool(down.weight.any() or across.weight.any()), k, h, w
    best, second = map(_at, ids) if ids else (0, 0)
    return not library.tessera_margin(*of, *_axis(down), *_axis(across), least, _at(margin), best, second)


def guided_labels(models: Array, photo: Array, down: Axis, across: Axis) -> Array | None:
    """The cluster whose model, read at the pixel's color, is highest.

    models   float32 [4, K, h, w]: slopes by red, green, blue and the offset;  photo  uint8 [H, W, 3]
    returns  uint8 [H, W]
    """
    library = _library()
    if library is None:
        return None
    models, photo = np.ascontiguousarray(models, np.float32), np.ascontiguousarray(photo, np.uint8)
    out = np.empty(photo.shape[:2], np.uint8)
    failed = library.tessera_guided_labels(
        _at(models), *models.shape[1:], *_axis(down), *_axis(across), _at(photo), _at(out)
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
    if library.tessera_count(_at(labels), *labels.shape, place, mh, mw, _at(pixels), _at(edges), _at(sums)):
        return None
    edges[:, 2:] -= edges[:, :2]
    return Counted(pixels, edges, sums)


def blend(image: Array, labels: Array, keep: Array, paint: Array) -> Array | None:
    """uint8 [H, W, 3]: (image × keep + paint) >> 8, both looked up by label.

    image  uint8 [H, W, 3];  labels  uint8 [H, W];  keep  uint16 [K];  paint  uint16 [K, 3]
    """
    library = _library()
    if library is None or image.shape != (*labels.shape, 3) or image.dtype != np.uint8 or labels.dtype != np.uint8:
        return None
    if labels.size and len(keep) < 256 and labels.max() >= len(keep):  # numpy says which label it is
        return None
    image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels)
    out = np.empty_like(image)
    library.tessera_blend(_at(image), _at(labels), labels.size, _at(keep), _at(paint), len(keep), _at(out))
    return out


def histogram16(values: Array, counts: Array) -> bool:
    """Adds how often each of 65,536 values occurs. False where it did not.

    values  uint16 of any shape;  counts  int64 [65536]
    """
    library = _library()
    if library is None or values.dtype != np.uint16:
        return False
    values = np.ascontiguousarray(values)
    return not library.tessera_histogram16(_at(values), values.size, _at(counts))


def lookup16(values: Array, table: Array, out: Array) -> bool:
    """table[values] into `out`, which may begin at the same byte of memory as the values. False where it did not.

    values  uint16, contiguous;  table  uint8 [65536];  out  uint8 of the values' shape, contiguous
    """
    library = _library()
    if library is None or not values.flags.c_contiguous or values.dtype != np.uint16:
        return False
    library.tessera_lookup16(_at(values), values.size, _at(table), _at(out))
    return True


def finite(values: Array) -> bool | None:
    """Whether none of float32 of any shape is NaN or infinite."""
    library = _library() if values.size > _BRIEF else _with_lock()
    if library is None or values.dtype != np.float32 or not values.flags.c_contiguous:
        return None
    return bool(library.tessera_finite(_at(values), values.size))


def run_lengths(labels: Array, *, text: bool, ignored: int) -> tuple[list[bytes], Array] | None:
    """COCO's run lengths of every id of a label map, and its pixels.

    labels   uint8 [H, W];  ignored  an id that is left out, or -1
    returns  [256] of characters, or of uint32 where `text` is False, empty for ids that are absent; int64 [256]
    """
    library = _library()
    if library is None or labels.dtype != np.uint8 or labels.size >= 2**32:
        return None
    labels = np.ascontiguousarray(labels)
    places, sizes, pixels = (ctypes.c_void_p * 256)(), np.zeros(256, np.int64), np.zeros(256, np.int64)
    if library.tessera_run_lengths(_at(labels), *labels.shape, text, ignored, places, _at(sizes), _at(pixels)):
        return None
    try:
        return [
            ctypes.string_at(at, size) if at else b"" for at, size in zip(places, sizes.tolist(), strict=True)
        ], pixels
    finally:
        library.tessera_release(places, len(places))


def erase_specks(labels: Array, smallest: int, value: int) -> Array | None:
    """uint8 [H, W] of the same, `value` in connected regions of fewer than `smallest` pixels."""
    library = _library()
    if library is None or labels.dtype != np.uint8 or labels.size >= 2**31:
        return None
    labels = np.ascontiguousarray(labels)
    out = labels.copy()
    return None if library.tessera_erase_specks(_at(labels), *labels.shape, smallest, value, _at(out)) else out


def regions(labels: Array, margin: Array | None, smallest: int, ignored: int, most: int) -> Rings | None:
    """Connected regions of a label map and their rings.

    labels    uint8 [H, W];  margin  float32 of any size that shows the same picture
    smallest  pixels of a region;  ignored  an id that is left out, or -1
    most      corners of all of them: OverflowError where there are more
    """
    library = _library()
    if library is None or labels.dtype != np.uint8 or labels.size >= 2**31:
        return None
    labels = np.ascontiguousarray(labels)
    margin = None if margin is None else np.ascontiguousarray(margin, np.float32)
    place, mh, mw = (0, 0, 0) if margin is None else (_at(margin), *margin.shape)
    at, counts = (ctypes.c_void_p * 5)(), np.zeros(3, np.int64)
    chosen = smallest, ignored, most
    failed = library.tessera_regions(_at(labels), *labels.shape, place, mh, mw, *chosen, at, _at(counts))
    if failed == 3:
        raise OverflowError(f"more than {most} corners")
    if failed:
        return None
    points, rings, found = counts.tolist()
    shapes: list[tuple[int, ...]] = [(points, 2), (rings, 2), (found,), (found,), (found,)]
    kinds = (np.int32, np.int64, np.int32, np.int64, np.float64)
    try:
        return Rings(*map(_copied, at, shapes, kinds))
    finally:
        library.tessera_release(at, len(at))


def felzenszwalb(image: Array, kernel: Array, scales: Array, smallest: Array) -> Array | None:
    """Regions of even color at every scale; None also where one scale has more than 65,535.

    image    uint8 [H, W, 3];  kernel  float64 [2 r + 1] that smooths it along both axes
    scales   float64 [S], in units of a channel's full range;  smallest  int64 [S], pixels of a region
    returns  uint16 [S, H, W], ids in the order of the regions' first pixels
    """
    library = _library()
    if library is None or image.dtype != np.uint8 or not image.size or image.shape[2:] != (3,):
        return None
    image = np.ascontiguousarray(image)
    out = np.empty((len(scales), *image.shape[:2]), np.uint16)
    places = _at(kernel), len(kernel) // 2, _at(scales), _at(smallest), len(scales)
    failed = library.tessera_felzenszwalb(_at(image), *image.shape[:2], *places, _at(out))
    return None if failed else out


def clahe(image: Array, clip_limit: float) -> Array | None:
    """uint8 [H, W, 3] of the same: the local histograms of its value made even, up to a limit of 0..1."""
    library = _library()
    if library is None or image.dtype != np.uint8 or not image.size or image.shape[2:] != (3,):
        return None
    image = np.ascontiguousarray(image)
    out = np.empty_like(image)
    return None if library.tessera_clahe(_at(image), *image.shape[:2], clip_limit, _at(out)) else out


def brush(labels: Array) -> dict[int, Array] | None:
    """Label Studio's brush strokes of every id that occurs, uint8 each.

    labels  uint8 [H, W], fewer than 2³⁰
    """
    library = _library()
    if library is None or labels.dtype != np.uint8 or not 0 < labels.size < 2**30:
        return None
    labels = np.ascontiguousarray(labels)
    sizes = np.zeros(256, np.int64)
    library.tessera_brush(_at(labels), labels.size, _at(sizes), 0)
    out = np.empty(int(sizes.sum()), np.uint8)
    library.tessera_brush(_at(labels), labels.size, _at(sizes), _at(out))
    ends = np.cumsum(sizes)
    return {int(i): out[ends[i] - sizes[i] : ends[i]] for i in np.flatnonzero(sizes)}


@lru_cache(maxsize=1)
def _with_lock() -> ctypes.CDLL | None:
    """The library once more, for calls that keep the interpreter's lock, which a busy thread gives back after 5 ms."""
    library = _library()
    if library is None:
        return None
    keeps = ctypes.PyDLL(library._name)
    keeps.tessera_finite.argtypes = library.tessera_finite.argtypes
    return keeps


def _axis(axis: Axis) -> tuple[int, int, int, int]:
    """An axis as the kernels take it: its three arrays and their length."""
    return _at(axis.low), _at(axis.high), _at(axis.weight), len(axis.low)


def _at(array: Array) -> int:
    return int(array.ctypes.data)


def _copied(at: int | None, shape: tuple[int, ...], kind: Any) -> Array:
    """An array of what a kernel has left there."""
    out = np.empty(shape, kind)
    if at and out.size:
        ctypes.memmove(_at(out), at, out.nbytes)
    return out
