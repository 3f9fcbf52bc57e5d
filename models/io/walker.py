"""Files below folders: found by one walker for all commands, in natural order.

Knows nothing of pixels. Linked folders are followed, and each folder is entered once. Hidden files and folders, those
of systems, and what Tessera itself wrote are no data; files of other kinds are counted.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.io.decode import SUFFIXES
from models.io.paths import Paths, Skipped, natural

# Hidden ones, what macOS packs, thumbnails of a Synology, what Windows keeps
NOT_ENTERED = re.compile(r"\.|__|@eaDir$|\$RECYCLE\.BIN$|System Volume Information$", re.IGNORECASE)
PLAN_PICTURE = "-plan.png"  # what the name of a run's folder is followed by, beside it
_ANSWERS = (".tessera", "journal.jsonl")  # what lies in a folder of label maps, below it
_OUTPUTS = (("run.json",), ("manifest.json", "encoder.onnx"))  # what lies in a run's folder, in a bundle's

_ZARR = ("zarr.json", ".zgroup")


@dataclass(frozen=True)
class Survey:
    """What lies below some folders.

    files     of the suffixes asked for: folder by folder, each in natural order
    left_out  how many files have another suffix, by it in small letters; "" without one
    unusable  what has such a suffix and is no file, and folders that cannot be entered
    outputs   folders of runs, bundles and answers, which are not entered
    stores    folders that are one picture each, in many files: Zarr
    """

    files: Paths
    left_out: Mapping[str, int] = field(default_factory=dict)
    unusable: tuple[Skipped, ...] = ()
    outputs: tuple[Path, ...] = ()
    stores: tuple[Path, ...] = ()


class _Walker:
    """Folders entered once each, real ones first: a linked folder that lies below the data keeps its own name."""

    def __init__(self, suffixes: Sequence[str], without: Collection[Path]) -> None:
        self.suffixes = frozenset(suffixes)
        self.files: list[str] = []
        self.links: list[str] = []
        self.left_out = Counter[str]()
        self.unusable: list[Skipped] = []
        self.outputs: list[Path] = []
        self.stores: list[Path] = []
        self._entered = {_identity(folder) for folder in without if folder.exists()}

    def walk(self, folder: str) -> list[str]:
        """The files below a folder; links to folders are put off."""
        self.files, waiting = [], [folder]
        while waiting:
            where = waiting.pop()
            try:
                if (identity := _identity(where)) in self._entered:
                    continue
                self._entered.add(identity)
                with os.scandir(where) as entries:
                    inside = list(entries)
            except OSError as error:
                self.unusable.append(
                    Skipped(Path(where), f"the folder cannot be entered: {(error.strerror or str(error)).lower()}")
                )
                continue
            names = {entry.name for entry in inside}
            if any(names.issuperset(output) for output in _OUTPUTS) or (where != folder and holds_answers(where)):
                self.outputs.append(Path(where))
                continue
            if not names.isdisjoint(_ZARR):
                self.stores.append(Path(where))
                continue
            for entry in inside:
                if self._is_folder(entry):
                    if not NOT_ENTERED.match(entry.name):
                        (self.links if entry.is_symlink() else waiting).append(entry.path)
                elif not entry.name.startswith("."):
                    self._take(entry)
        return self.files

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # links in a circle
            return False

    def _take(self, entry: os.DirEntry[str]) -> None:
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix not in self.suffixes:
            self.left_out[suffix] += 1
        elif _is_file(entry):
            self.files.append(entry.path)
        else:
            reason = "a link to nothing" if entry.is_symlink() else "no file: it is a pipe, a socket or a device"
            self.unusable.append(Skipped(Path(entry.path), reason))


def survey(folders: Sequence[Path], suffixes: Sequence[str] = SUFFIXES, *, without: Collection[Path] = ()) -> Survey:
    """Every file of these suffixes below some folders.

    without  folders that are not entered

    The picture that a dry run leaves beside a run's folder is no data either. Label maps that a command made are data
    where their own folder is named: as somebody's labels.
    """
    walker = _Walker(suffixes, without)
    found: dict[str, list[str]] = {str(folder): walker.walk(str(folder)) for folder in folders}
    while walker.links:
        links, walker.links = sorted(walker.links, key=natural), []
        for link in links:
            home = max((folder for folder in found if _is_below(link, folder)), key=len)
            found[home] += walker.walk(link)
    pictures = {f"{os.path.realpath(folder)}{PLAN_PICTURE}" for folder in (*walker.outputs, *without)}
    ordered = (file for folder, files in found.items() for file in _in_order(files, folder))
    return Survey(
        Paths(file for file in ordered if file not in pictures),
        walker.left_out,
        tuple(walker.unusable),
        tuple(walker.outputs),
        tuple(sorted(walker.stores, key=lambda store: natural(str(store)))),
    )


def walk(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> Paths:
    """Every file of these suffixes below a folder, in natural order; none without a folder."""
    return survey([folder], suffixes).files


def holds_answers(folder: str) -> bool:
    """Whether a command wrote label maps there."""
    return os.path.isfile(os.path.join(folder, *_ANSWERS))


def _in_order(files: list[str], folder: str) -> list[str]:
    start = len(folder.rstrip("/")) + 1
    return sorted(files, key=lambda file: (natural(file[start:]), file))


def _identity(folder: Path | str) -> tuple[int, int]:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
