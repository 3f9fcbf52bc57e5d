"""The images of a run, each read when it is asked for, never altered.

Knows nothing of data sets or methods, nor of how images are found and checked (files, check).
"""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.errors import TesseraError
from models.io.decode import inspect
from models.io.paths import Names, Paths, Skipped
from models.io.samples import Choice, Decoded
from models.terminal.progress import Progress
from training.data.class_table import PLAIN, ClassTable, pixels_by_value
from training.data.errors import DataError, UnreadableImage, reason_of
from training.data.label_maps import LabelReader, Values, read_labels
from training.data.limits import LIMITS
from training.data.prefetch import prefetch

FEWEST_IMAGES = 4  # k-means of a few hundred patches still runs; below that nothing can be learned
LEAST_VALID = 0.01  # share of an image, or of a crop, that holds data: below it there is nothing to learn from

Bands = tuple[int, ...] | None
Reader = Callable[[Path, Bands], Decoded]

_LARGE_BYTES = 2**29  # to decode one image: such are decoded one at a time, however many threads read
_LARGE = threading.Lock()


def read_image(path: Path, bands: Bands = None) -> Decoded:
    """An image file, decoded as serving does it; `bands` as models.io.samples.Choice has them.

    Raises ImageError and its kin, OSError.
    """
    found = inspect(path.read_bytes(), limits=LIMITS, choice=Choice(bands=bands))
    with _LARGE if found.working_bytes > _LARGE_BYTES else nullcontext():
        return found.decode()


@dataclass(frozen=True)
class Found:
    """What a data set's file finds in a folder, before any image is opened.

    labels       image path → label map path, where there is one
    class_names  in order; empty when nobody knows them
    table        class of every value in the files
    read         a file of `paths` and its bands → what it shows; a function of a module, as processes are sent it
    read_labels  a file of `labels`, and what its colors mean → its values, integers [H, W]
    notes        what whoever asked should know, a sentence each
    bands        which samples of a file with many are read; None: as the file says
    left_out     how many files of other kinds lie there, by suffix
    unusable     what looks like an image and is no file, and folders that cannot be entered
    """

    paths: Sequence[Path] = ()
    labels: Mapping[Path, Path] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    table: ClassTable = PLAIN
    read: Reader = read_image
    read_labels: LabelReader = read_labels
    notes: tuple[str, ...] = ()
    bands: Bands = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    unusable: Sequence[Skipped] = ()


@dataclass(frozen=True)
class NamedReader:
    """A reader whose errors name the file below its folder; it can be sent to processes. Raises UnreadableImage."""

    read: Reader
    names: Names

    def __call__(self, path: Path, bands: Bands = None) -> Decoded:
        """What the file shows."""
        try:
            return self.read(path, bands)
        except (TesseraError, OSError) as error:
            raise UnreadableImage(self.names.of(path), reason_of(error, str(path))) from None


def evenly(count: int, most: int) -> list[int]:
    """At most so many of the numbers 0..count - 1, in equal steps."""
    some = min(count, most)
    return [i * count // some for i in range(some)]


class Images:
    """Images of one data set, each decoded when it is asked for: `images[i]` is RGB uint8 [H, W, 3].

    `images.load(i)` says besides where it holds data: what does not is in nothing that is learned or measured.

    roots    folders the names are relative to
    paths    one file per image
    found    what is known of them beside: label maps, class names, how both are read
    skipped  what was found and could not be read
    sizes    int64 [n], the files' bytes where they are known; None: they are asked for
    """

    def __init__(
        self,
        roots: Path | Sequence[Path],
        paths: Sequence[Path],
        found: Found | None = None,
        *,
        skipped: Sequence[Skipped] = (),
        sizes: NDArray[np.int64] | None = None,
    ) -> None:
        self.names = Names((roots,) if isinstance(roots, Path) else tuple(roots))
        self.paths = paths if isinstance(paths, Paths) else Paths(paths)
        self.skipped = tuple(skipped)
        self._found, self._sizes = replace(found or Found(), paths=(), unusable=()), sizes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        return self.load(i).image

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[i] for i in range(len(self)))

    @property
    def root(self) -> Path:
        """The folder they are in, the first of several."""
        return self.names.roots[0]

    @property
    def title(self) -> str:
        """What the folders are called: "photos", "photos and more"."""
        return " and ".join(root.name for root in self.names.roots)

    def load(self, i: int) -> Decoded:
        """Image i, and where it holds data. Raises UnreadableImage."""
        return self.read(self.paths[i], self.bands)

    def name(self, i: int) -> str:
        """Path below the root, with forward slashes; of several roots behind the name of its own."""
        return self.names.of(self.paths[i])

    @property
    def read(self) -> Reader:
        """How one of `paths` is read; for whoever reads them in processes of its own."""
        return NamedReader(self._found.read, self.names)

    @property
    def bands(self) -> Bands:
        """Which samples of a file are read; None: as the file says."""
        return self._found.bands

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever asked for them should know, a sentence each."""
        return self._found.notes

    @property
    def labelled(self) -> bool:
        """Whether every image has a label map."""
        return bool(self.paths) and all(path in self._found.labels for path in self.paths)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """In order; where nobody knows them "class 0" to the largest value in the label maps.

        All of them are read, those of images this is a subset of, too: its classes are theirs.
        """
        found = self._found
        if found.class_names or not found.labels:
            return found.class_names
        return found.table.numbered(self._counted(tuple(found.labels.values())))

    @property
    def named_classes(self) -> tuple[str, ...]:
        """`class_names` where somebody named them, () elsewhere: no label map is read."""
        return self._found.class_names

    @property
    def table(self) -> ClassTable:
        """The class of every value in the label maps."""
        return self._found.table

    def value_counts(self, console: Console | None = None) -> Counter[int]:
        """Pixels of every value in the images' label maps.

        A map that cannot be read, or holds a value that is no class, is left to whoever asks for it.
        """
        labels = self._found.labels
        return self._counted([labels[path] for path in self.paths if path in labels], console)

    def _counted(self, paths: Sequence[Path], console: Console | None = None) -> Counter[int]:
        def count(path: Path) -> Counter[int]:
            with suppress(DataError):
                counts = pixels_by_value(self._values(path))
                if self.table.knows(counts):
                    return counts
            return Counter()

        counts = Counter[int]()
        with Progress(console or Console(quiet=True), "reading label maps", len(paths)) as bar:
            for one in prefetch(count, paths, min(8, os.cpu_count() or 1)):
                counts += one
                bar.advance()
        return counts

    def _values(self, path: Path) -> Values:
        return self._found.read_labels(path, self.table.colors)

    def labels(self, i: int) -> NDArray[np.uint8]:
        """Ground truth of image i: uint8 [H, W], 255 = ignored. For scoring; no method reads it. Raises DataError."""
        path = self._found.labels.get(self.paths[i])
        if path is None:
            raise DataError(f"{self.name(i)} has no label map")
        values = self._values(path)
        try:
            return self.table.classes(values)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many files of other kinds lie beside them, by suffix."""
        return self._found.left_out

    def subset(self, indices: Iterable[int], *, skipped: Sequence[Skipped] = ()) -> "Images":
        """Some of them, in the given order."""
        return Images(self.names.roots, [self.paths[i] for i in indices], self._found, skipped=skipped)

    def classified(self, class_names: tuple[str, ...], table: ClassTable) -> "Images":
        """The same images and label maps, whose values mean other classes."""
        found = replace(self._found, class_names=class_names, table=table)
        return Images(self.names.roots, self.paths, found, skipped=self.skipped, sizes=self._sizes)

    def paired(self, labels: Mapping[Path, Path]) -> "Images":
        """The same images with other label maps, whose values are the classes until `classified` says otherwise."""
        found = Found(labels=labels, read=self._found.read, bands=self.bands)
        return Images(self.names.roots, self.paths, found, skipped=self.skipped, sizes=self._sizes)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The files' bytes, int64 [n]. Raises UnreadableImage."""
        if self._sizes is not None:
            return self._sizes
        return np.array([self._size(path) for path in self.paths], np.int64)

    def _size(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError as error:
            raise UnreadableImage(self.names.of(path), reason_of(error)) from None

    @cached_property
    def digest(self) -> str:
        """sha256 over names and byte sizes: changes when a file is added, removed or rewritten."""
        seen = hashlib.sha256()
        for text, size in zip(self.paths.texts, self.sizes.tolist(), strict=True):
            seen.update(f"{self.names.of_text(text)}\0{size}\n".encode(errors="surrogateescape"))
        return seen.hexdigest()
