"""Pictures in OME-Zarr, 0.4 and 0.5: rows of one read by its chunks, and label images written beside it.

Knows nothing of clusters, of networks, of HTTP. The library `zarr` (extra `zarr`) reads and writes the arrays; what
their metadata ask of it is looked at first: codecs by name, so that none is run that builds objects, and chunks whose
size has a bound. Nothing is read through a link that leads out of the store.
Source: OME-NGFF 0.4 and 0.5, multiscales, omero, labels and image-label metadata.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from models.errors import UsageError
from models.extras import brings
from models.io import stretch
from models.io.rows import Rolling, Rows
from models.io.samples import Choice, ImageError, ImageTooLarge, Limits, NoSuchPart, Size, UnsupportedImage
from models.types import Array

CHUNK_BYTES = 64 * 2**20  # of one chunk, unpacked
_MOST_TEXT = 2**22  # bytes of a metadata file
_LEAST_ROWS = 64
_LEVEL_PX = (2**16, 2**22)  # of the level that the range of samples is taken of
_SAMPLE_ROWS = 16  # rows of chunks that it is taken of elsewhere
_CHUNK, _SMALLEST = 1024, 512  # of label images: a chunk's side, and that of the last level at most
_NUMBERS_ONLY = ("bytes", "transpose", "sharding_indexed", "crc32c", "shuffle", "delta", "bitround")
_CODECS = frozenset([*_NUMBERS_ONLY, "blosc", "gzip", "zstd", "zlib", "lz4", "bz2", "lzma"])


class Level(NamedTuple):
    """One of a picture's sizes: where its array lies in the store, and how far apart its pixels are (z, y, x …)."""

    path: str
    transformations: list[dict[str, Any]]


class Multiscale(NamedTuple):
    """A picture by its metadata.

    version  of OME-NGFF, "0.4" or "0.5";  axes  as they stand there, y and x the last two
    levels   the largest first;  channels  names of the channels that are shown, None: not said
    """

    version: str
    axes: list[dict[str, Any]]
    levels: list[Level]
    active: list[int] | None

    @property
    def names(self) -> list[str]:
        """The axes' letters."""
        return [str(axis["name"]) for axis in self.axes]


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return (path / "zarr.json").is_file() or (path / ".zgroup").is_file()


class ZarrRows:
    """Rows of one picture of a store, as `models.io.rows.RowSource` has them.

    Raises UsageError without zarr, ImageError and its kin.
    """

    def __init__(self, path: Path, limits: Limits, choice: Choice) -> None:
        self.multiscale = multiscale = read_multiscale(path)
        store = _store(path, read_only=True)
        level = choice.level or 0
        if level >= len(multiscale.levels):
            raise NoSuchPart(f"pyramid {level}: this picture has {len(multiscale.levels) - 1} smaller level(s)")
        self._array = _array(path, store, multiscale.levels[level].path, len(multiscale.axes))
        shape = dict(zip(multiscale.names, self._array.shape, strict=False))
        self.size: Size = (shape["y"], shape["x"])
        limits.check_size(*self.size)
        times, planes, count = shape.get("t", 1), shape.get("z", 1), shape.get("c", 1)
        self.pages = times * planes
        if choice.page >= self.pages:
            raise NoSuchPart(f"page {choice.page}: this file has {self.pages} page(s), counted from 0")
        warnings = list[str]()
        self._bands = _bands(count, multiscale.active, choice, warnings)
        self.warnings = tuple(warnings)
        self._at = {"t": choice.page // planes, "z": choice.page % planes}
        chunk = dict(zip(multiscale.names, self._array.chunks, strict=False))
        unit = chunk["y"] * max(1, _LEAST_ROWS // chunk["y"])
        self._choice = choice
        self._between: tuple[float, float] | None = None
        self.depth_rule: str | None = None
        self._take_range(path, store, unit)
        self._rolling = Rolling(self.size[0], unit, lambda number: self._unit(number, unit))
        self.held_bytes = 2 * unit * self.size[1] * len(self._bands) * self._array.dtype.itemsize

    def rows(self, top: int, bottom: int) -> Rows:
        """RGB uint8 [n, W, 3] of rows that lie no higher than those asked for last, and where they are valid."""
        return self._rolling.rows(top, bottom)

    def _unit(self, number: int, unit: int) -> Rows:
        samples = self._samples(self._array, number * unit, min((number + 1) * unit, self.size[0]))
        shown = stretch.to_8_bit(samples, self._choice.depth, between=self._between)
        image = shown.image if shown.image.shape[2] == 3 else np.repeat(shown.image, 3, axis=2)
        return image, shown.valid

    def _samples(self, array: Any, top: int, bottom: int) -> Array:
        """[rows, W, bands] of an array that is a level of the picture. Raises ImageError."""
        planes = list[Array]()
        for band in self._bands:
            at = {**self._at, "c": band, "y": slice(top, bottom), "x": slice(None)}
            try:
                planes.append(np.asarray(array[tuple(at[name] for name in self.multiscale.names)]))
            except (ValueError, RuntimeError, OSError, TypeError, KeyError) as error:
                raise ImageError(f"a chunk of the Zarr array cannot be read: {str(error)[:200]}") from None
        return np.stack(planes, axis=-1)

    def _take_range(self, path: Path, store: Any, unit: int) -> None:
        """The values that become 0 and 255, of a smaller level or of rows that lie evenly over the picture."""
        if self._array.dtype == np.uint8:
            return
        for number, level in enumerate(self.multiscale.levels[1:], 1):
            array = _array(path, store, level.path, len(self.multiscale.axes))
            if not self._choice.level and _LEVEL_PX[0] <= array.shape[-1] * array.shape[-2] <= _LEVEL_PX[1]:
                samples, where = self._samples(array, 0, array.shape[-2]), f"of level {number} of the pyramid"
                break
        else:
            count = -(-self.size[0] // unit)
            some = sorted({(2 * i + 1) * count // (2 * _SAMPLE_ROWS) for i in range(_SAMPLE_ROWS)})
            step = max(1, len(some) * unit * self.size[1] // _LEVEL_PX[1])
            thin = [
                self._samples(self._array, at * unit, min((at + 1) * unit, self.size[0]))
                .reshape(-1, 1, len(self._bands))[::step]
                .copy()  # not a view of the whole
                for at in some
            ]
            samples, where = np.concatenate(thin), f"of {len(some)} of {count} rows of chunks"
        self._between = stretch.span(samples, self._choice.depth)
        rule = stretch.to_8_bit(samples[:1, :1], self._choice.depth, between=self._between).rule
        self.depth_rule = rule and f"{rule}, {where}"


@contextmanager
def open_rows(path: Path, limits: Limits, choice: Choice) -> Iterator[ZarrRows]:
    """Of a store. Raises UsageError without zarr, ImageError and its kin."""
    yield ZarrRows(path, limits, choice)


def read_multiscale(path: Path) -> Multiscale:
    """What a store says of its picture. Raises UnsupportedImage for one that holds none, or of another version."""
    document = _attributes(path)
    ome = document.get("ome", document)
    scales = ome.get("multiscales") if isinstance(ome, dict) else None
    if not isinstance(scales, list) or not scales or not isinstance(scales[0], dict):
        raise UnsupportedImage("this Zarr group says of no picture (`multiscales`); name the group of an image")
    first = scales[0]
    version = str(first.get("version", ome.get("version", "0.4")))
    if version not in ("0.4", "0.5"):
        raise UnsupportedImage(f"OME-Zarr {version[:20]} is not opened; 0.4 and 0.5 are")
    axes, datasets = first.get("axes"), first.get("datasets")
    sound = isinstance(axes, list) and all(isinstance(a, dict) and isinstance(a.get("name"), str) for a in axes)
    names = [axis["name"] for axis in axes] if sound and axes else []
    if names[-2:] != ["y", "x"] or not set(names) <= set("tczyx") or len(set(names)) < len(names):
        raise UnsupportedImage(f"axes {', '.join(names)[:100]} are not opened; t, c, z, y, x are, y and x the last")
    if not isinstance(datasets, list) or not datasets or not all(isinstance(d, dict) for d in datasets):
        raise ImageError("the OME-Zarr is damaged: `multiscales` names no arrays")
    levels = [Level(_below(d.get("path")), _listed(d.get("coordinateTransformations"))) for d in datasets]
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    active = None
    if isinstance(channels, list):
        active = [i for i, channel in enumerate(channels) if isinstance(channel, dict) and channel.get("active")]
    return Multiscale(version, list(axes or []), levels, active)


class LabelImageWriter:
    """A label image on its way into a store's group `labels`. As a context it is there at the end, or not at all.

    path    the store, which is made where there is none;  name  of the label image
    size    (H, W);  dtype  uint8 or uint16;  of  the picture it is of: its axes and its scale
    names, colors uint8 [K, 3]  of the ids `first`, `first` + 1, …

    Rows come from the top on. Raises UsageError without zarr, and OSError.
    """

    def __init__(
        self,
        path: Path,
        size: Size,
        of: Multiscale,
        *,
        level: int = 0,
        name: str = "tessera",
        names: Sequence[str] = (),
        colors: Array | None = None,
        first: int = 0,
        dtype: np.dtype[Any] = np.dtype(np.uint8),  # noqa: B008
    ) -> None:
        self._path, self._size, self._of, self._level, self._name = path, size, of, level, name
        self._first, self._dtype = first, dtype
        self._names, self._colors = names, colors
        self._scratch = path / "labels" / f".{name}.{uuid4().hex[:8]}"
        self._zarr = _zarr()
        self._format = 2 if of.version == "0.4" else 3
        self._lead = [axis for axis in of.axes[:-2] if axis["name"] != "c"]
        self._scratch.mkdir(parents=True)
        self._array = self._create(0, size)
        self._rows = np.empty((min(_CHUNK, size[0]), size[1]), dtype)
        self._top = self._held = 0

    def write(self, top: int, left: int, labels: Array) -> None:
        """Whole rows [h, W], those behind the last ones."""
        if (top, left) != (self._top + self._held, 0):
            raise ValueError("label images are written in whole rows, from the top on")
        while len(labels):
            some = labels[: len(self._rows) - self._held]
            self._rows[self._held : self._held + len(some)] = some
            self._held, labels = self._held + len(some), labels[len(some) :]
            if self._held == len(self._rows):
                self._flush()

    def close(self) -> None:
        """Its smaller levels are made, and it takes its place."""
        try:
            self._flush()
            sizes = self._levels()
            self._describe(sizes)
            self._enter()
        finally:
            self.drop()

    def drop(self) -> None:
        """Nothing remains of it."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> "LabelImageWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.drop()

    def _flush(self) -> None:
        if self._held:
            self._put(self._array, self._top, self._rows[: self._held])
            self._top, self._held = self._top + self._held, 0

    def _put(self, array: Any, top: int, rows: Array) -> None:
        lead = [1] * len(self._lead)
        array[(*[slice(None)] * len(lead), slice(top, top + len(rows)), slice(None))] = rows.reshape(*lead, *rows.shape)

    def _create(self, number: int, size: Size) -> Any:
        lead = [1] * len(self._lead)
        return self._zarr.create_array(
            str(self._scratch / str(number)),
            shape=(*lead, *size),
            chunks=(*lead, min(_CHUNK, size[0]), min(_CHUNK, size[1])),
            dtype=str(self._dtype),
            zarr_format=self._format,
            chunk_key_encoding={"name": "v2" if self._format == 2 else "default", "separator": "/"},
            fill_value=0,
        )

    def _levels(self) -> list[Size]:
        """The sizes of all levels, each made of the one before: every second pixel, so that all ids are the map's."""
        sizes, above = [self._size], self._array
        while max(sizes[-1]) > _SMALLEST:
            height, width = -(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)
            array = self._create(len(sizes), (height, width))
            for top in range(0, height, _CHUNK):
                rows = np.asarray(above[(*[0] * len(self._lead), slice(2 * top, 2 * (top + _CHUNK)), slice(None))])
                self._put(array, top, rows[::2, ::2])
            sizes.append((height, width))
            above = array
        return sizes

    def _describe(self, sizes: Sequence[Size]) -> None:
        """The label image's own metadata."""
        axes = [*self._lead, *self._of.axes[-2:]]
        kept = [i for i, axis in enumerate(self._of.axes) if axis["name"] != "c"]
        first = _scale(self._of.levels[self._level], len(self._of.axes))
        datasets = [
            {
                "path": str(number),
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [
                            *(first[i] for i in kept[:-2]),
                            first[kept[-2]] * self._size[0] / height,
                            first[kept[-1]] * self._size[1] / width,
                        ],
                    }
                ],
            }
            for number, (height, width) in enumerate(sizes)
        ]
        shown = [] if self._colors is None else [[int(v) for v in color] + [255] for color in self._colors]
        version = self._of.version
        label = {
            "colors": [{"label-value": i, "rgba": color} for i, color in enumerate(shown, self._first)],
            "properties": [{"label-value": i, "name": name} for i, name in enumerate(self._names, self._first)],
            "source": {"image": "../../"},
        }
        scales = {"axes": axes, "datasets": datasets, "name": self._name}
        if version == "0.4":
            _write_group(
                self._scratch,
                {"multiscales": [{"version": version, **scales}], "image-label": {"version": version, **label}},
                2,
            )
        else:
            ome = {"version": version, "multiscales": [scales], "image-label": label}
            _write_group(self._scratch, {"ome": ome}, 3)

    def _enter(self) -> None:
        """The label image takes its place, and the group says that it is there."""
        labels = self._path / "labels"
        place, old = labels / self._name, labels / f"{self._scratch.name}.old"
        if place.exists():
            place.rename(old)
        self._scratch.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        if not is_zarr(self._path):
            _write_group(self._path, {}, self._format)
        known = _attributes(labels) if is_zarr(labels) else {}
        listed = known.get("ome", known).get("labels", [])
        names = [*(one for one in listed if one != self._name), self._name]
        document = {"labels": names} if self._format == 2 else {"ome": {"version": self._of.version, "labels": names}}
        _write_group(labels, document, self._format)


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise UsageError(f"OME-Zarr needs zarr, which is not installed: {brings('zarr')}") from None
    return zarr


def _store(path: Path, *, read_only: bool) -> Any:
    """A store that reads regular files below its own folder, whatever links say."""
    _zarr()
    from zarr.storage import LocalStore

    root = os.path.realpath(path)

    class Inside(LocalStore):
        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            real = os.path.realpath(os.path.join(root, key))
            if not real.startswith(root + os.sep):
                raise ImageError("the Zarr store has links that lead out of it")
            try:
                if not stat.S_ISREG(os.stat(real).st_mode):
                    return None
            except OSError:
                return None
            return await super().get(key, prototype, byte_range)

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
            return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    return Inside(root, read_only=read_only)


def _array(path: Path, store: Any, name: str, axes: int) -> Any:
    """One array of so many axes, once its metadata are known to ask for nothing else than numbers.

    Raises ImageError and its kin.
    """
    plain = _json(path / name / "zarr.json") or _json(path / name / ".zarray")
    if plain is None:
        raise ImageError(f"the OME-Zarr is damaged: it has no array {name[:100]!r}")
    for codec in _codecs(plain):
        if codec not in _CODECS:
            raise UnsupportedImage(f"Zarr codec {codec[:40]!r} is not opened; blosc, zstd, gzip, zlib and lz4 are")
    try:
        array = _zarr().open_array(store, path=name, mode="r")
        kind, chunks = array.dtype.kind, (array.shards or array.chunks, array.chunks)
    except ImageError:
        raise
    except Exception as error:  # a library's, of metadata that nobody wrote by hand
        raise ImageError(f"the Zarr array {name[:100]!r} cannot be opened: {str(error)[:200]}") from None
    if kind not in "uif":
        raise UnsupportedImage(f"Zarr arrays of {array.dtype} are not opened; integers and floats are")
    if array.ndim != axes or min(array.shape) < 1:
        raise ImageError(f"the Zarr array {name[:100]!r} has the shape {array.shape}")
    if (most := max(int(np.prod(c, dtype=object)) for c in chunks) * array.dtype.itemsize) > CHUNK_BYTES:
        raise ImageTooLarge(
            f"the Zarr array's chunks have {most / 2**20:.0f} MiB each, and {CHUNK_BYTES / 2**20:.0f} MiB are the most"
            " that is read at once; write it with smaller chunks"
        )
    return array


def _codecs(document: Any) -> Iterator[str]:
    """The names of all codecs that an array's metadata ask for, at any depth."""
    if isinstance(document, list):
        for one in document:
            yield from _codecs(one)
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        if key in ("codecs", "index_codecs", "filters", "storage_transformers"):
            for one in value if isinstance(value, list) else [value] if value else []:
                yield str(one.get("name", one.get("id"))) if isinstance(one, dict) else str(one)
        if key == "compressor" and value is not None:
            yield str(value.get("id")) if isinstance(value, dict) else str(value)
        if key != "attributes":
            yield from _codecs(value)


def _bands(count: int, active: list[int] | None, choice: Choice, warnings: list[str]) -> tuple[int, ...]:
    """Which channels are shown: those asked for, those that the file shows, or the first."""
    if choice.bands is not None:
        if max(choice.bands) > count or len(choice.bands) not in (1, 3):
            raise NoSuchPart(f"bands: this picture has the channels 1 to {count}; name one or three of them")
        return tuple(band - 1 for band in choice.bands)
    known = [i for i in active or [] if i < count] or list(range(count))
    chosen = tuple(known[:3]) if len(known) >= 3 else tuple(known[:1])
    if count > len(chosen):
        shown = ", ".join(str(i + 1) for i in chosen)
        warnings.append(f"of {count} channels, {shown} {'are' if len(chosen) > 1 else 'is'} shown: bands= chooses")
    return chosen


def _scale(level: Level, axes: int) -> list[float]:
    """How far apart a level's pixels are, by its metadata; 1 where they do not say."""
    for one in level.transformations:
        scale = one.get("scale") if isinstance(one, dict) and one.get("type") == "scale" else None
        if isinstance(scale, list) and len(scale) == axes and all(isinstance(n, int | float) for n in scale):
            return [float(n) for n in scale]
    return [1.0] * axes


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _below(path: object) -> str:
    """A path inside of the store. Raises ImageError for any other."""
    if not isinstance(path, str) or not path or path.startswith("/") or "\\" in path or "\0" in path:
        raise ImageError("the OME-Zarr is damaged: a level of it has no path")
    if any(part in ("", "..") for part in path.strip("/").split("/")):
        raise ImageError("the OME-Zarr is damaged: a level lies outside of it")
    return path.strip("/")


def _attributes(path: Path) -> dict[str, Any]:
    """A group's own."""
    if (document := _json(path / "zarr.json")) is not None:
        found = document.get("attributes", {})
    else:
        found = _json(path / ".zattrs") or {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any] | None:
    """A metadata file; None where there is none. Raises ImageError for one that is damaged or too long."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(_MOST_TEXT + 1)
        document = json.loads(data)
    except (OSError, ValueError, RecursionError):
        raise ImageError(f"the Zarr store is damaged: {path.name} cannot be read") from None
    if len(data) > _MOST_TEXT or not isinstance(document, dict):
        raise ImageError(f"the Zarr store is damaged: {path.name} cannot be read")
    return document


def _write_group(path: Path, attributes: dict[str, Any], version: int) -> None:
    """A group's metadata; other keys of theirs that are there stay."""
    path.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (path / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
        _replace(path / ".zattrs", {**(_json(path / ".zattrs") or {}), **attributes})
        return
    known = _json(path / "zarr.json") or {"zarr_format": 3, "node_type": "group", "attributes": {}}
    own = {**known.get("attributes", {}), **attributes}
    _replace(path / "zarr.json", {**known, "attributes": own})


def _replace(path: Path, document: dict[str, Any]) -> None:
    scratch = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    scratch.write_text(json.dumps(document, indent=1))
    scratch.replace(path)
