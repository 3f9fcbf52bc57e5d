"""Images to learn from: what a data set is, and how one is opened by name.

Knows nothing of crops, batches or networks. The folder is the registry: a further data set is one file
here with a function `find(folder, split) -> Found`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from models import image
from models.errors import TesseraError
from training.progress import Progress

FEWEST_IMAGES = 4  # k-means of a few hundred patches still runs; below that nothing can be learned
SMALLEST_SIDE_PX = 16
LIMITS = image.Limits(max_bytes=2**31, max_mpx=1000.0, max_side_px=2**18)  # our own disk, not a stranger's upload


class DataError(TesseraError):
    """A folder, an image or a label map that cannot be used; the message names it."""


@dataclass(frozen=True)
class Found:
    """What a data set's file finds in a folder, before any image is opened.

    labels       image path → label map path, where there is one
    class_names  by label value
    """

    paths: Sequence[Path]
    labels: Mapping[Path, Path] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read, and why."""

    path: Path
    reason: str


class Images:
    """Images of one data set, each decoded when it is asked for: `images[i]` is RGB uint8 [H, W, 3].

    root     the folder names are relative to
    paths    one file per image
    skipped  what was found and could not be read
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[Path],
        *,
        skipped: Sequence[Skipped] = (),
        labels: Mapping[Path, Path] | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        self.root, self.paths, self.skipped = root, tuple(paths), tuple(skipped)
        self.class_names = class_names
        self._labels = labels or {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        return image.load(self.paths[i], limits=LIMITS).image

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[i] for i in range(len(self)))

    def name(self, i: int) -> str:
        """Path below the root, with forward slashes."""
        return self.paths[i].relative_to(self.root).as_posix()

    @property
    def labelled(self) -> bool:
        """Whether every image has a label map."""
        return bool(self.paths) and all(path in self._labels for path in self.paths)

    def labels(self, i: int) -> NDArray[np.uint8]:
        """Ground truth of image i: uint8 [H, W], 255 = ignored. For scoring; no method reads it."""
        path = self._labels.get(self.paths[i])
        if path is None:
            raise DataError(f"{self.name(i)} has no label map")
        with Image.open(path) as opened:
            if opened.mode not in ("L", "P"):
                raise DataError(f"{path}: mode {opened.mode}; a label map has one byte a pixel (mode L or P)")
            return np.asarray(opened, dtype=np.uint8)

    def subset(self, indices: Iterable[int]) -> Images:
        """Some of them, in the given order."""
        paths = [self.paths[i] for i in indices]
        return Images(self.root, paths, labels=self._labels, class_names=self.class_names)

    @cached_property
    def digest(self) -> str:
        """sha256 over names and byte sizes: changes when a file is added, removed or rewritten."""
        seen = hashlib.sha256()
        for i, path in enumerate(self.paths):
            seen.update(f"{self.name(i)}\0{path.stat().st_size}\n".encode(errors="surrogateescape"))
        return seen.hexdigest()


def names() -> list[str]:
    """Every data set there is a file for."""
    return sorted(module.name for module in iter_modules(__path__))


def open(name: str, folder: Path, *, split: str = "train", console: Console | None = None) -> Images:
    """The readable images of a data set; each is decoded once, the others are named and skipped.

    Raises DataError when the folder or the data set does not exist or too few images can be read.
    """
    if name not in names():
        raise DataError(f"data set {name!r}: there are {', '.join(names())}")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; --data names the folder that holds the images")
    folder = folder.resolve()
    found: Found = import_module(f"training.datasets.{name}").find(folder, split)
    console = console or Console(stderr=True)
    good, skipped = check(found.paths, console)
    for one in skipped:
        where = one.path.relative_to(folder)
        console.print(f"skipped {where}: {one.reason}", markup=False, highlight=False, soft_wrap=True)
    if len(good) < FEWEST_IMAGES:
        raise DataError(
            f"{folder} holds {len(good)} readable image{'s' * (len(good) != 1)}"
            f" ({len(skipped)} unreadable); at least {FEWEST_IMAGES} are needed, a few dozen are better."
            f" Known suffixes: {' '.join(image.SUFFIXES)}"
        )
    return Images(folder, good, skipped=skipped, labels=found.labels, class_names=found.class_names)


def check(paths: Sequence[Path], console: Console) -> tuple[list[Path], list[Skipped]]:
    """Decodes every file once, in threads: (the readable ones, the others with the reason)."""
    good: list[Path] = []
    skipped: list[Skipped] = []
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        Progress(console, "reading", len(paths)) as bar,
    ):
        for path, reason in zip(paths, pool.map(_trouble, paths), strict=True):
            if reason is None:
                good.append(path)
            else:
                skipped.append(Skipped(path, reason))
            bar.advance(note=f"{len(skipped)} unreadable" if skipped else "")
    return good, skipped


def _trouble(path: Path) -> str | None:
    try:
        height, width = image.load(path, limits=LIMITS).image.shape[:2]
    except (TesseraError, OSError) as error:
        return str(error).replace(f"{path}: ", "")
    if min(height, width) < SMALLEST_SIDE_PX:
        return f"{width}×{height} pixels; the shorter side must have {SMALLEST_SIDE_PX}"
    return None


def natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which frame_9 comes before frame_10."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p)


def walk(folder: Path) -> list[Path]:
    """Every image file below a folder, in natural order; hidden files and folders are left out."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith((".", "__"))]
        found += [Path(where, f) for f in files if Path(f).suffix.lower() in image.SUFFIXES and not f.startswith(".")]
    return sorted(found, key=lambda path: (natural(path.relative_to(folder)), str(path)))
