"""The images of a run: read, checked, skipped with a reason, never altered.

Knows nothing of data sets or methods.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.console import Console

from models.errors import TesseraError, UsageError
from models.io.decode import load
from models.io.samples import Limits
from training.progress import Progress

FEWEST_IMAGES = 4  # k-means of a few hundred patches still runs; below that nothing can be learned
SMALLEST_SIDE_PX = 16
LIMITS = Limits(max_bytes=2**31, max_mpx=1000.0, max_side_px=2**18)  # our own disk, not a stranger's upload
IGNORED = 255  # in label maps
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")  # JPEG and WebP change values

Reader = Callable[[Path], NDArray[np.uint8]]


class DataError(UsageError):
    """A folder, an image or a label map that cannot be used; the message names it."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of an image file."""
    return load(path, limits=LIMITS).image


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Values of a label map, uint8 [H, W]: gray, palette (the index is the value) or 16-bit below 256."""
    try:
        with Image.open(path) as opened:
            if opened.mode not in ("1", "L", "P", "I", "I;16"):
                raise DataError(
                    f"{path}: mode {opened.mode}; a label map has one byte a pixel (mode L or P), the class's number"
                )
            values = np.asarray(opened)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # SyntaxError: Pillow's word for a broken PNG
        raise DataError(f"{path}: the label map cannot be read: {error}") from None
    if values.size and not (values.min() >= 0 and values.max() <= IGNORED):
        raise DataError(f"{path}: values up to {values.max()}; label maps hold classes 0 to 254, and 255 for ignored")
    return values.astype(np.uint8)


@dataclass(frozen=True)
class Found:
    """What a data set's file finds in a folder, before any image is opened.

    labels       image path → label map path, where there is one
    class_names  in order; empty when nobody knows them
    table        uint8 [256]: class of every value in the files, 255 = ignored; None where values are classes
    read         a file of `paths` → RGB uint8 [H, W, 3]; a function of a module, as processes are sent it
    read_labels  a file of `labels` → its values, uint8 [H, W]
    notes        what whoever asked should know, a sentence each
    """

    paths: Sequence[Path]
    labels: Mapping[Path, Path] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    table: NDArray[np.uint8] | None = None
    read: Reader = read_image
    read_labels: Reader = read_labels
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
        """In order; where nobody knows them "class 0" to the largest value in the label maps, which are all read.

        A map that cannot be read is left to whoever asks for it.
        """
        found = self._found
        if found.class_names or not found.labels:
            return found.class_names
        largest = 0
        for path in found.labels.values():  # of the images this is a subset of, too: its classes are theirs
            with suppress(DataError):
                values = found.read_labels(path)
                largest = max(largest, int(values[values != IGNORED].max(initial=0)))
        return tuple(f"class {n}" for n in range(largest + 1))

    def labels(self, i: int) -> NDArray[np.uint8]:
        """Ground truth of image i: uint8 [H, W], 255 = ignored. For scoring; no method reads it."""
        path = self._found.labels.get(self.paths[i])
        if path is None:
            raise DataError(f"{self.name(i)} has no label map")
        values = self._found.read_labels(path)
        return values if self._found.table is None else self._found.table[values]

    def subset(self, indices: Iterable[int]) -> "Images":
        """Some of them, in the given order."""
        return Images(self.root, [self.paths[i] for i in indices], self._found)

    def paired(self, labels: Mapping[Path, Path]) -> "Images":
        """The same images with other label maps, whose values are the classes."""
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
