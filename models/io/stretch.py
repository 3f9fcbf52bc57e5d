"""Samples of any depth to 8 bits: which of them hold data, what range they span, and the way from it to 0..255.

Knows nothing of file formats. Works in strips of rows, in the samples' own memory where it may: no copy of a large
image is made in another type.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.io.samples import Depth, UnsupportedImage
from models.native import bindings
from models.types import Array

_STRIP = 2**19  # samples looked at at once
_LEVELS = 2**16
_EXTREME = 3e38  # a no-data value beyond it stands for all of that sign: writers round float32's limits differently
_LARGEST = float(np.finfo(np.float32).max)  # values are reckoned in float32; beyond it they are as if infinite
_PERCENTILES = (0.02, 0.98)


@dataclass(frozen=True)
class Stretched:
    """Samples as 8 bits.

    image  uint8, the samples' shape: 0 where a sample holds no data
    valid  bool [H, W]: whether any sample of the pixel holds data; None where all pixels do
    rule   how they were mapped, for people; None for 8-bit samples, which are kept
    """

    image: Array
    valid: Array | None
    rule: str | None


def to_8_bit(
    samples: Array,
    depth: Depth,
    *,
    bits: int | None = None,
    inverted: bool = False,
    nodata: float | None = None,
    valid: Array | None = None,
    out: Array | None = None,
    keep_bytes: bool = True,
    between: tuple[float, float] | None = None,
) -> Stretched:
    """Samples [H, W, bands] of an integer or float type as uint8, all bands by one range.

    depth     where the range is: `percentile` 2 to 98, `minmax`, `full` (all that `bits` can say; floats: 0..1)
    bits      of an unsigned sample, where its type has more
    inverted  0 is white
    nodata    the value that says there is no data; in floats what is not finite says so as well
    valid     bool [H, W]: where data may be; elsewhere nothing is looked at
    out       uint8 of the samples' shape for the answer; may share the beginning of their memory, which is lost then
    keep_bytes  8-bit samples are shown as they are
    between   the values that become 0 and 255, where they are known from more than these samples (`span`)

    A pixel holds data where any of its bands does. Samples without data are in no range.
    Raises UnsupportedImage for other types.
    """
    if samples.dtype.kind not in "uif":
        raise UnsupportedImage(f"samples of type {samples.dtype} are not opened; send integers or floats")
    marks = _Marks(samples, nodata, valid)
    out = np.empty(samples.shape, np.uint8) if out is None else out
    if samples.dtype == np.uint8 and keep_bytes:
        for rows in _strips(samples):
            strip = samples[rows]
            out[rows] = marks.blank(255 - strip if inverted else strip, rows)
        return Stretched(out, marks.valid, None)
    low, high = between or _range(samples, depth, bits, marks)
    if samples.dtype.itemsize <= 2 and samples.dtype.kind in "ui":
        _by_table(samples, _ramp(_levels_of(samples.dtype), low, high, inverted), marks, out)
    else:
        for rows in _strips(samples):
            with np.errstate(invalid="ignore", over="ignore"):
                scaled = _ramp(samples[rows].astype(np.float32), low, high, inverted)
            out[rows] = marks.blank(scaled, rows)
    name = "percentile 2–98" if depth == "percentile" else depth
    ends = "255..0" if inverted else "0..255"
    return Stretched(out, marks.valid, f"{name}: {low:g}..{high:g} → {ends}")


def span(
    samples: Array, depth: Depth, *, bits: int | None = None, nodata: float | None = None, valid: Array | None = None
) -> tuple[float, float]:
    """The values that `to_8_bit` brings to 0 and 255: of samples [H, W, bands] that stand for others besides."""
    return _range(samples, depth, bits, _Marks(samples, nodata, valid))


class _Marks:
    """Which samples hold data, found strip by strip in the first look and kept."""

    def __init__(self, samples: Array, nodata: float | None, valid: Array | None) -> None:
        self._samples, self._given = samples, valid
        self._nodata = of_type(nodata, samples.dtype)
        self._plain = samples.dtype.kind != "f" and self._nodata is None
        self.valid: Array | None = valid
        if not self._plain:
            found = np.ones(samples.shape[:2], bool) if valid is None else valid.copy()
            for rows in _strips(samples):
                if (good := self._good(samples[rows])) is not None:
                    found[rows] &= good.any(axis=2)
            self.valid = None if found.all() else found

    def usable(self, rows: slice) -> Array:
        """The samples of some rows that hold data: all of them as they lie, or a flat selection."""
        strip = self._samples[rows]
        good = None if self._plain else self._good(strip)
        if self._given is not None:
            given = np.broadcast_to(self._given[rows, :, None], strip.shape)
            good = given if good is None else good & given
        return strip if good is None else strip[good]

    def blank(self, shown: Array, rows: slice) -> Array:
        """What is shown of some rows, 0 where a sample holds no data."""
        good = None if self._plain else self._good(self._samples[rows])
        if good is not None:
            shown = np.where(good, shown, 0).astype(np.uint8)
        return shown

    def _good(self, strip: Array) -> Array | None:
        """bool of the strip's shape, or None where all samples hold data."""
        value = self._nodata
        if strip.dtype.kind == "f":
            good = np.abs(strip) <= _LARGEST if strip.dtype == np.float64 else np.isfinite(strip)
            if value is not None:
                good &= strip != value if abs(value) < _EXTREME else strip * np.sign(value) < _EXTREME
        else:
            good = strip != value
        return None if good.all() else good


def of_type(nodata: float | None, dtype: np.dtype) -> float | None:
    """The value as samples of this type can hold it; None where they cannot, or it is not a number."""
    if nodata is None or nodata != nodata:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(nodata))
    info = np.iinfo(dtype)
    return int(nodata) if info.min <= nodata <= info.max and nodata == int(nodata) else None


def _range(samples: Array, depth: Depth, bits: int | None, marks: _Marks) -> tuple[float, float]:
    """The values that become 0 and 255; 0 and 0 where no sample holds data."""
    dtype = samples.dtype
    if depth == "full":
        if dtype.kind == "f":
            return 0.0, 1.0
        return float(np.iinfo(dtype).min), float(2**bits - 1 if bits and dtype.kind == "u" else np.iinfo(dtype).max)
    levels = _Levels(samples, marks)
    if not levels.count:
        return 0.0, 0.0
    if depth == "percentile":
        low, high = (levels.quantile(q) for q in _PERCENTILES)
        if high > low:  # a nearly constant image still has its extremes
            return low, high
    return levels.quantile(0.0), levels.quantile(1.0)


class _Levels:
    """Exact order statistics from histograms: one look for 16-bit samples, two for wider ones."""

    def __init__(self, samples: Array, marks: _Marks) -> None:
        self._samples, self._marks = samples, marks
        self._wide = samples.dtype.itemsize > 2 or samples.dtype.kind == "f"
        self._first = self._histogram(None)
        self._below = np.cumsum(self._first)
        self._second: dict[int, Array] = {}
        self.count = int(self._below[-1])

    def quantile(self, q: float) -> float:
        """Between the two nearest samples, as numpy.quantile has it."""
        place = q * (self.count - 1)
        lower = self._at(int(place))
        upper = self._at(min(int(place) + 1, self.count - 1))
        return lower + (upper - lower) * (place - int(place))

    def _at(self, rank: int) -> float:
        top = int(np.searchsorted(self._below, rank, side="right"))
        if not self._wide:
            return float(_from_key(np.array([top], np.uint16), self._samples.dtype)[0])
        if top not in self._second:
            self._second[top] = np.cumsum(self._histogram(top))
        rank -= int(self._below[top] - self._first[top])
        low = int(np.searchsorted(self._second[top], rank, side="right"))
        return float(_from_key(np.array([top << 16 | low], np.uint32), self._samples.dtype)[0])

    def _histogram(self, top: int | None) -> Array:
        """int64 [65536]: of the keys' upper halves, or of the lower halves of those whose upper half is `top`."""
        counts = np.zeros(_LEVELS, np.int64)
        for rows in _strips(self._samples):
            keys = _key(self._marks.usable(rows))
            if self._wide:
                keys = (keys >> 16 if top is None else keys[keys >> 16 == top] & 0xFFFF).astype(np.uint16)
            if not bindings.histogram16(keys, counts):
                counts += np.bincount(keys.ravel(), minlength=_LEVELS)
        return counts


def _key(values: Array) -> Array:
    """Unsigned numbers in the values' order: uint16 for integers of up to 16 bits, else uint32.

    64-bit values are rounded to float32 first.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind in "ui" and size <= 2:
        wide = values.astype(np.int16 if kind == "i" else np.uint16, copy=False)
        return wide.view(np.uint16) ^ np.uint16(0x8000) if kind == "i" else wide
    if kind in "ui" and size == 4:
        return values.view(np.uint32) ^ np.uint32(0x80000000) if kind == "i" else values
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(raw >> 31, ~raw, raw | np.uint32(0x80000000))


def _from_key(keys: Array, dtype: np.dtype) -> Array:
    """The values of such numbers."""
    if dtype.kind in "ui" and dtype.itemsize <= 2:
        return (keys ^ np.uint16(0x8000)).view(np.int16) if dtype.kind == "i" else keys
    if dtype.kind in "ui" and dtype.itemsize == 4:
        return (keys ^ np.uint32(0x80000000)).view(np.int32) if dtype.kind == "i" else keys
    raw = np.where(keys >> 31, keys & np.uint32(0x7FFFFFFF), ~keys).astype(np.uint32)
    return raw.view(np.float32)


def _levels_of(dtype: np.dtype) -> Array:
    """All values of an integer type of up to 16 bits, in the order of their bits as uint16."""
    bits = np.arange(_LEVELS, dtype=np.uint32).astype(np.uint16)
    return (bits.view(np.int16) if dtype.kind == "i" else bits).astype(np.float32)


def _ramp(values: Array, low: float, high: float, inverted: bool) -> Array:
    """float32 values to uint8: low to 0, high to 255, the rest clipped."""
    scale = 255.0 / (high - low) if high > low else 0.0
    shown = np.clip((values - low) * scale, 0, 255)
    shown = np.nan_to_num(255 - shown if inverted else shown, nan=0.0)
    return np.asarray(np.rint(shown).astype(np.uint8))


def _by_table(samples: Array, table: Array, marks: _Marks, out: Array) -> None:
    for rows in _strips(samples):
        strip = samples[rows]
        wide = strip.astype(f"{strip.dtype.kind}2", copy=False)
        values = np.ascontiguousarray(wide).view(np.uint16)
        if not (marks._plain and out[rows].flags.c_contiguous and bindings.lookup16(values, table, out[rows])):
            out[rows] = marks.blank(table[values], rows)


def _strips(samples: Array) -> Iterator[slice]:
    """Rows, from the first on."""
    height = len(samples)
    rows = max(1, _STRIP // max(1, samples[0].size if height else 1))
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))
