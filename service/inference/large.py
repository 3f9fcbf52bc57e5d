"""Files that are too large to be held: segmented window by window, from the file to a file.

Knows nothing of HTTP. A GeoTIFF, or any TIFF, becomes a cloud-optimized GeoTIFF of the same size and place; a picture
in OME-Zarr a label image of the same axes and scale.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from models import region_stats
from models.deadline import Deadline
from models.errors import UsageError
from models.familiarity import Tally
from models.io import geotiff, ome_zarr, tiff_directory, tiff_georeference, tiff_rows
from models.io.file_bytes import FileBytes
from models.io.georeference import Georeference
from models.io.rows import RowSource
from models.io.samples import Choice, Limits, UnsupportedImage
from models.manifest import Manifest
from models.prototypes import Classifier
from models.region_stats import Area
from models.types import Array
from service.formats.result import NO_DATA, ClusterStyle, StoredIds
from service.inference import windowed
from service.inference.options import Options
from service.inference.windowed import Part, Predict, Progress

A = TypeVar("A")
B = TypeVar("B")
LIMITS = Limits(max_bytes=2**50, max_mpx=100_000.0, max_side_px=1_000_000, setting="TESSERA_MAX_FILE_MPX")


class LabelSink(Protocol):
    """Where labels go."""

    def write(self, top: int, left: int, labels: Array) -> None:
        """Those of a window [h, w], whose upper left pixel is (top, left)."""
        ...


class LargeAnswer(NamedTuple):
    """What was segmented.

    size     (H, W) of the label map;  windows  the network was asked for;  areas  where the picture holds data
    seconds  that it took;  tally  of the cells of all windows
    """

    size: tuple[int, int]
    windows: int
    areas: list[Area]
    valid_fraction: float
    depth_rule: str | None
    pages: int
    warnings: tuple[str, ...]
    seconds: float
    tally: Tally


def choice_of(options: Options, manifest: Manifest) -> Choice:
    """What of a file windows are cut from: its full size, or the level that the options name."""
    choice = options.choice(manifest.input)
    return choice if choice.level is not None else replace(choice, level=0, enough=None)


def in_rows(path: Path) -> bool:
    """Whether rows of a file or folder can be read. Raises ImageError for what is neither, and OSError."""
    if ome_zarr.is_zarr(path):
        return True
    with FileBytes.open(path) as data:
        return data[:4] in tiff_directory.MAGIC


@contextmanager
def open_rows(path: Path, choice: Choice, limits: Limits = LIMITS) -> Iterator[RowSource]:
    """A file's rows, or those of a Zarr store. Raises ImageError and its kin, UsageError without zarr, and OSError."""
    if ome_zarr.is_zarr(path):
        yield ome_zarr.ZarrRows(path, limits, choice)
        return
    if not in_rows(path):
        raise UnsupportedImage(
            f"{path.name} is no TIFF, and of large files only those are read in windows; convert it: gdal_translate -of"
            " COG in out.tif"
        )
    with tiff_rows.open_rows(path, limits, choice) as rows:
        yield rows


def segment_large(
    path: Path,
    out: Path,
    manifest: Manifest,
    predict: Predict,
    options: Options,
    *,
    style: ClusterStyle,
    table: Array,
    limits: Limits = LIMITS,
    until: Deadline | None = None,
    progress: Progress | None = None,
) -> LargeAnswer:
    """A file's label map, written to another: a GeoTIFF; or `labels/tessera` of a Zarr store, the file's own or not.

    predict  of `windowed`;  style, table  of the model's clusters, and which stands for each (`Clusters.table`)
    until    after which DeadlineExceeded is raised, or once it is cancelled: nothing of it is left in `out` then
    progress  told of the windows that are done, and of how many there are

    Which of them says the name of `out`. Raises ImageError and its kin, UsageError where a library is missing that
    reads or writes the files, and OSError.
    """
    choice = choice_of(options, manifest)
    with open_rows(path, choice, limits) as source:
        sink = partial(sink_of, source, path, out, choice, style, options.id_offset)
        return write_labels(source, sink, manifest, predict, options, table=table, until=until, progress=progress)


@contextmanager
def sink_of(
    source: RowSource, path: Path, out: Path, choice: Choice, style: ClusterStyle, offset: int = 0
) -> Iterator[LabelSink]:
    """Where the labels of a file's rows go: a GeoTIFF in its place, or a Zarr store, by the name of `out`.

    offset  is added to their ids
    """
    ids = StoredIds.of(len(style.names), offset)
    writer: geotiff.LabelMapWriter | ome_zarr.LabelImageWriter
    if out.suffix.lower() != ".zarr":
        colors = np.concatenate([np.zeros((offset, 3), np.uint8), style.colors])
        writer = geotiff.LabelMapWriter(
            out,
            source.size,
            georeference_of(path, choice),
            names=("",) * offset + style.names,
            colors=colors,
            nodata=ids.no_data,
            dtype="uint8" if ids.values.dtype == np.uint8 else "uint16",
        )
    elif isinstance(source, ome_zarr.ZarrRows):
        writer = ome_zarr.LabelImageWriter(
            out,
            source.size,
            source.multiscale,
            level=choice.level or 0,
            names=style.names,
            colors=style.colors,
            first=offset,
            dtype=ids.values.dtype,
        )
    else:
        raise UsageError(f"{out.name}: label images go beside pictures in OME-Zarr; write a .tif for a TIFF")
    with writer:
        yield _Stored(writer, ids.values)


class _Stored:
    """A sink that is given ids, and gives on what files hold for them."""

    def __init__(self, sink: LabelSink, values: Array) -> None:
        self._sink, self._values = sink, values

    def write(self, top: int, left: int, labels: Array) -> None:
        """Those of a window [h, w], whose upper left pixel is (top, left)."""
        self._sink.write(top, left, self._values[labels])


def georeference_of(path: Path, choice: Choice) -> Georeference | None:
    """Where the rows of a file lie; None where it does not say. Raises ImageError, and OSError."""
    if ome_zarr.is_zarr(path):
        return None
    return tiff_georeference.load(path, page=choice.page, level=choice.level or 0)


def write_labels(
    source: RowSource,
    sink: Callable[[], AbstractContextManager[LabelSink]],
    manifest: Manifest,
    predict: Predict,
    options: Options,
    *,
    table: Array,
    classifier: Classifier | None = None,
    margin: bool = False,
    until: Deadline | None = None,
    progress: Progress | None = None,
) -> LargeAnswer:
    """All rows of a picture to where labels go; one strip is written while the network sees the next.

    classifier  of classes in place of clusters: `table` is theirs;  margin  areas are told with their confidence
    """
    keep, unknown = options.nodata == "keep", options.unknown
    began, count = time.monotonic(), len(table)
    ids = np.arange(NO_DATA + 1, dtype=np.uint8)
    ids[:count] = table

    def write(part: Part) -> tuple[list[Area], int]:
        shown = labels = part.labels()
        held = labels.size if part.valid is None else int(np.count_nonzero(part.valid))
        if part.valid is not None:
            labels = np.where(part.valid, labels, np.uint8(NO_DATA))
            shown = labels if keep else shown
        margins = part.margin(full=unknown is not None) if margin or unknown is not None else None
        if unknown is not None and margins is not None:
            doubtful = margins < unknown
            labels, shown = (np.where(doubtful, np.uint8(NO_DATA), one) for one in (labels, shown))
        to.write(part.rows[0], 0, ids[shown])
        return _below(region_stats.compute(labels, count, margins, ignored=NO_DATA), part.rows[0]), held

    areas, held, tally = list[Area](), 0, Tally()
    with sink() as to, ThreadPoolExecutor(1, "labels") as writer:
        code = margin or unknown is not None
        going = windowed.parts(
            source,
            manifest,
            predict,
            code=code,
            skip=keep,
            classifier=classifier,
            tally=tally,
            until=until,
            progress=progress,
        )
        for found, valid in _one_behind(writer, write, going):
            areas += found
            held += valid
    return LargeAnswer(
        source.size,
        len(windowed.layout_of(source.size, manifest)),
        region_stats.merge(areas, table),
        held / (source.size[0] * source.size[1]),
        source.depth_rule,
        source.pages,
        source.warnings,
        time.monotonic() - began,
        tally,
    )


def _one_behind(pool: ThreadPoolExecutor, work: Callable[[A], B], given: Iterable[A]) -> Iterator[B]:
    """What a thread makes of each, while the next one is made."""
    before: Future[B] | None = None
    for one in given:
        if before is not None:
            yield before.result()
        before = pool.submit(work, one)
    if before is not None:
        yield before.result()


def _below(areas: list[Area], top: int) -> list[Area]:
    """Of rows that begin at `top`."""
    return [area._replace(bbox=(area.bbox[0], area.bbox[1] + top, *area.bbox[2:])) for area in areas]
