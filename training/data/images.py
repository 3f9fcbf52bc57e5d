"""The images of a run: read, checked, skipped with a reason, never altered.

Knows nothing of data sets or methods.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.errors import TesseraError
from models.io.decode import load
from models.io.samples import Limits
from training.data.class_table import PLAIN, ClassTable, pixels_by_value
from training.data.errors import DataError
from training.data.label_maps import LabelReader, Values, read_labels
from training.data.prefetch import prefetch
from training.progress import Progress

FEWEST_IMAGES = 4  # k-means of a few hundred patches still runs; below that nothing can be learned
SMALLEST_SIDE_PX = 16
LIMITS = Limits(max_bytes=2**31, max_mpx=1000.0, max_side_px=2**18)  # our own disk, not a stranger's upload

Reader = Callable[[Path], NDArray[np.uint8]]


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of an image file."""
    return load(path, limits=LIMITS).image


@dataclass(frozen=True)
class Found:
    """What a data set's file finds in a folder, before any image is opened.

    labels       image path → label map path, where there is one
    class_names  in order; empty when nobody knows them
    table        class of every value in the files
    read         a file of `paths` → RGB uint8 [H, W, 3]; a function of a module, as processes are sent it
    read_labels  a file of `labels`, and what its colors mean → its values, integers [H, W]
    notes        what whoever asked should know, a sentence each
    """

    paths: Sequence[Path]
    labels: Mapping[Path, Path] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    table: ClassTable = PLAIN
    read: Reader = read_image
    read_labels: LabelReader = read_labels
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read, and why."""

    path: Path
    reason: str


def evenly(count: int, most: int) -> list[int]:
    """At most so many of the numbers 0..count - 1, in equal steps."""
    some = min(count, most)
    return [i * count // some for i in range(some)]


class Images:
    """Images of one data set, each decoded when it is asked for: `images[i]` is RGB uint8 [H, W, 3].

    root     the folder names are relative to
    paths    one file per image
    found    what is known of them beside: label maps, class names, how both are read
    skipped  what was found and could not be read
    """

    def __init__(
        self, root: Path, paths: Sequence[Path], found: Found | None = None, *, skipped: Sequence[Skipped] = ()
    ) -> None:
        self.root, self.paths, self.skipped = root, tuple(paths), tuple(skipped)
        self._found = found or Found(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        return self.read(self.paths[i])

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[i] for i in range(len(self)))

    def name(self, i: int) -> str:
        """Path below the root, with forward slashes."""
        return self.paths[i].relative_to(self.root).as_posix()

    @property
    def read(self) -> Reader:
        """How one of `paths` is read; for whoever reads them in processes of its own."""
        return self._found.read

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

    def subset(self, indices: Iterable[int]) -> "Images":
        """Some of them, in the given order."""
        return Images(self.root, [self.paths[i] for i in indices], self._found)

    def classified(self, class_names: tuple[str, ...], table: ClassTable) -> "Images":
        """The same images and label maps, whose values mean other classes."""
        found = replace(self._found, class_names=class_names, table=table)
        return Images(self.root, self.paths, found, skipped=self.skipped)

    def paired(self, labels: Mapping[Path, Path]) -> "Images":
        """The same images with other label maps, whose values are the classes until `classified` says otherwise."""
        return Images(self.root, self.paths, Found(self.paths, labels, read=self.read), skipped=self.skipped)

    @cached_property
    def digest(self) -> str:
        """sha256 over names and byte sizes: changes when a file is added, removed or rewritten."""
        seen = hashlib.sha256()
        for i, path in enumerate(self.paths):
            seen.update(f"{self.name(i)}\0{path.stat().st_size}\n".encode(errors="surrogateescape"))
        return seen.hexdigest()


def check(paths: Sequence[Path], console: Console, read: Reader = read_image) -> tuple[list[Path], list[Skipped]]:
    """Decodes every file once, in threads: (the readable ones, the others with the reason)."""
    good: list[Path] = []
    skipped: list[Skipped] = []
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        Progress(console, "reading", len(paths)) as bar,
    ):
        for path, reason in zip(paths, pool.map(partial(_trouble, read), paths), strict=True):
            if reason is None:
                good.append(path)
            else:
                skipped.append(Skipped(path, reason))
            bar.advance(note=f"{len(skipped)} unreadable" if skipped else "")
    return good, skipped


def _trouble(read: Reader, path: Path) -> str | None:
    try:
        height, width = read(path).shape[:2]
    except (TesseraError, OSError) as error:
        return str(error).replace(f"{path}: ", "")
    if min(height, width) < SMALLEST_SIDE_PX:
        return f"{width}×{height} pixels; the shorter side must have {SMALLEST_SIDE_PX}"
    return None
