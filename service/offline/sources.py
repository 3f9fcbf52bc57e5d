"""Where images come from: files, folders, patterns, zip archives, buckets, lists of them. Each file is taken once.

Knows nothing of pixels, or of what is made of an image. What is asked for stays in the order of the asking, each folder
and archive in natural order.
"""

import glob
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol

from models.errors import UsageError
from models.io import ome_zarr
from models.io.decode import SUFFIXES
from models.io.paths import Names, Skipped, natural
from models.io.walker import holds_answers, survey
from service.errors import quoted
from service.offline import remote
from service.offline.archive import Archive, Bounds

_ARCHIVES = (".zip",)
_WHAT = "name a file, a folder, a pattern in quotes, a zip archive, a bucket's URL, @LIST or - for a list of them"


class Origin(Protocol):
    """What an image is read from."""

    def read(self, source: str) -> bytes:
        """A file's bytes. Raises OSError, TesseraError."""

    def close(self) -> None:
        """Lets go of what was opened."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image to come.

    name    where it lies below what was asked for, with forward slashes and its own suffix
    source  which file it is, whatever it was asked for with: a path, or an archive's and, behind `!`, the member's
    size    bytes;  stamp  changes when the file does
    path    of a file that lies on this machine by itself, else None
    store   whether that is a folder which is one picture: Zarr
    """

    name: str
    source: str
    size: int
    stamp: str
    origin: Origin
    path: Path | None = None
    store: bool = False

    def read(self) -> bytes:
        """Its bytes. Raises OSError, TesseraError."""
        return self.origin.read(self.source)


@dataclass(frozen=True)
class Found:
    """What was found.

    unusable  files and folders that cannot be taken, with the reason
    left_out  how many files below folders and in archives are no images by their suffix, by it
    walked    the folders that were searched
    """

    items: list[Item]
    unusable: list[Skipped]
    left_out: Counter[str]
    walked: list[Path]


class _Disk:
    """Files of this machine."""

    def read(self, source: str) -> bytes:
        return Path(source).read_bytes()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class _Members:
    """The files of an archive that lies at `at`."""

    archive: Archive
    at: str

    def read(self, source: str) -> bytes:
        return self.archive.read(source[len(self.at) + 1 :])

    def close(self) -> None:
        self.archive.close()

    def __reduce__(self) -> tuple[object, ...]:
        """In another process it is opened there, once."""
        return _members, (self.at, self.archive.bounds)


@cache
def _members(at: str, bounds: Bounds) -> _Members:
    return _Members(Archive(Path(at), bounds), at)


@dataclass
class Finder:
    """Collects what it is told to take; `found` names it.

    without  folders in which nothing is found: what is written goes there;  without_url  the same below an URL
    inside   a folder that no file may lie outside of, links followed; None: anywhere
    bounds   of archives
    """

    without: Collection[Path] = ()
    inside: Path | None = None
    bounds: Bounds = field(default_factory=Bounds)
    without_url: str | None = None

    def __post_init__(self) -> None:
        self._items: list[tuple[Path | None, Item]] = []  # with the root that it is named below; None: it was named
        self._taken: set[str] = set()
        self._origins: list[Origin] = []
        self._unusable: list[Skipped] = []
        self._left_out = Counter[str]()
        self._walked: list[Path] = []
        self._disk = _Disk()

    def word(self, word: str) -> None:
        """What somebody typed. Raises UsageError for what is not there, and what Archive raises."""
        if os.path.lexists(word):
            self.path(Path(word))
        elif word == "-":
            self._list("the list on standard input", sys.stdin.buffer.read())
        elif remote.is_url(word):
            self.url(word)
        elif word.startswith("@"):
            try:
                self._list(word[1:], Path(word[1:]).read_bytes())
            except OSError as error:
                raise UsageError(f"{quoted(word[1:], 200)}: {_reason(error)}; @LIST names a file of paths") from None
        elif glob.has_magic(word):
            self._pattern(word)
        else:
            raise UsageError(f"{quoted(word, 200)} is not there; {_WHAT}")

    def path(self, path: Path) -> None:
        """A file, a folder or an archive, as it stands. Raises what Archive raises."""
        if path.is_dir() and ome_zarr.is_zarr(path):
            self._store(None, str(path.absolute()))
        elif path.is_dir():
            self.folder(path)
        elif path.suffix.lower() in _ARCHIVES and path.is_file():
            self.archive(path)
        else:
            self._file(None, str(path.absolute()))

    def folder(self, folder: Path, root: Path | None = None) -> None:
        """All images below a folder, named below it, or below `root`, in which it lies."""
        folder = folder.absolute()
        found = survey([folder], without=[one for one in self.without if one.exists()])
        self._walked.append(folder)
        self._unusable += found.unusable
        self._left_out.update(found.left_out)
        for text in found.files.texts:
            self._file(root or folder, text)
        for store in found.stores:
            self._store(root or folder, str(store))

    def archive(self, path: Path) -> None:
        """All images in a zip archive. Raises ArchiveError, OSError."""
        at = os.path.realpath(path)
        if at in self._taken:
            return
        self._taken.add(at)
        archive = Archive(Path(at), self.bounds)
        self._origins.append(origin := _Members(archive, at))
        self._unusable += archive.unusable
        root = path.absolute().with_suffix("")
        for member in sorted(archive.members, key=lambda member: (natural(member.name), member.name)):
            suffix = os.path.splitext(member.name)[1].lower()
            if suffix not in SUFFIXES:
                self._left_out[suffix] += 1
                continue
            item = Item(f"{root}/{member.name}", f"{at}!{member.name}", member.size, member.stamp, origin)
            self._items.append((root, item))

    def url(self, url: str) -> None:
        """An object of a bucket, all images below a prefix, or those that fit a pattern. Raises UsageError."""
        self._origins.append(bucket := remote.Bucket.of(url))
        barred = None if self.without_url is None else f"{self.without_url}/"
        found = (file for file in bucket.below(url) if barred is None or not file.url.startswith(barred))
        files = sorted(found, key=lambda file: (natural(file.url), file.url))
        if not files:
            raise UsageError(f"{quoted(url, 200)} holds nothing")
        plain = url.partition("*")[0].rstrip("/") if "*" not in url else url.partition("*")[0].rpartition("/")[0]
        top = plain.rpartition("/")[0] if files[0].url == plain else plain
        for file in files:
            suffix = os.path.splitext(file.url)[1].lower()
            if suffix not in SUFFIXES and file.url != plain:
                self._left_out[suffix] += 1
            elif file.url not in self._taken:
                self._taken.add(file.url)
                item = Item(f"/{file.url.replace('://', ':/')}", file.url, file.size, file.stamp, bucket)
                self._items.append((Path(f"/{top.replace('://', ':/')}"), item))

    def found(self) -> Found:
        """Everything that was taken, each file by its name below what it was asked for with.

        Of several folders and archives names begin with the folder's own; files that were named stand below the folder
        that they share.
        """
        roots = tuple(dict.fromkeys(root for root, _ in self._items if root is not None))
        names = Names(roots)
        named = [os.path.dirname(item.name) for root, item in self._items if root is None]
        shared = os.path.commonpath(named).rstrip("/") if named else ""
        items = [
            replace(item, name=item.name[len(shared) + 1 :] if root is None else names.of_text(item.name))
            for root, item in self._items
        ]
        return Found(items, self._unusable, self._left_out, self._walked)

    def close(self) -> None:
        """Lets go of the archives."""
        for origin in self._origins:
            origin.close()

    def _file(self, root: Path | None, path: str) -> None:
        self._take(root, path, path)

    def _store(self, root: Path | None, path: str) -> None:
        described = next(name for name in ("zarr.json", ".zgroup") if os.path.isfile(os.path.join(path, name)))
        self._take(root, path, os.path.join(path, described), store=True)

    def _take(self, root: Path | None, path: str, told: str, *, store: bool = False) -> None:
        """An image at `path`, of which the file at `told` says how large it is, and when it changed."""
        folder, name = os.path.split(path)
        source = os.path.join(os.path.realpath(folder), name)
        if source in self._taken:
            return
        self._taken.add(source)
        if self.inside is not None and not Path(os.path.realpath(path)).is_relative_to(self.inside.resolve()):
            self._unusable.append(Skipped(Path(path), "it lies, or leads, outside of the folder that is open to this"))
            return
        try:
            facts = os.stat(told)
        except OSError as error:
            self._unusable.append(Skipped(Path(path), _reason(error)))
            return
        stamp = str(facts.st_mtime_ns)
        self._items.append((root, Item(path, source, facts.st_size, stamp, self._disk, Path(source), store)))

    def _pattern(self, pattern: str) -> None:
        """A pattern's files, named below the folder where its first sign of one stands; folders are searched.

        Answers that were written below that folder are passed over, as the walker does.
        """
        parts = Path(pattern).parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:fixed]).absolute()
        barred = tuple(os.path.realpath(folder) + os.sep for folder in self.without)
        matches = sorted(glob.glob(pattern, recursive=True), key=lambda match: (natural(match), match))
        if not matches:
            raise UsageError(f"{quoted(pattern, 200)} fits nothing that is there; {_WHAT}")
        answers = cache(holds_answers)
        for match in matches:
            if os.path.realpath(match).startswith(barred) and barred:
                continue
            if any(answers(str(folder)) for folder in _between(root, Path(match).absolute())):
                continue
            suffix = os.path.splitext(match)[1].lower()
            if os.path.isdir(match) and ome_zarr.is_zarr(Path(match)):
                self._store(root, os.path.abspath(match))
            elif os.path.isdir(match):
                if "**" not in parts:
                    self.folder(Path(match), root)
            elif suffix in SUFFIXES:
                self._file(root, os.path.abspath(match))
            elif suffix in _ARCHIVES:
                self.archive(Path(match))
            else:
                self._left_out[suffix] += 1

    def _list(self, name: str, data: bytes) -> None:
        """Paths, one a line, or with a NUL behind each, as `find -print0` writes them."""
        lines = data.split(b"\0") if b"\0" in data else data.splitlines()
        for line in lines:
            word = os.fsdecode(line)
            if os.path.lexists(line):
                self.path(Path(word))
            elif remote.is_url(word):
                self.url(word)
            elif word:
                raise UsageError(f"{quoted(word, 200)} is in {name}, and is not there")


@contextmanager
def find(words: Sequence[str], *, without: Collection[Path] = (), without_url: str | None = None) -> Iterator[Found]:
    """What people ask for, to be read until the block ends. Raises UsageError, ArchiveError, OSError.

    without  folders in which nothing is found;  without_url  the same below an URL
    """
    finder = Finder(without, without_url=without_url)
    try:
        for word in words:
            finder.word(word)
        yield finder.found()
    finally:
        finder.close()


def _between(root: Path, path: Path) -> list[Path]:
    """A path and the folders that it lies in, below a root."""
    return [folder for folder in (path, *path.parents) if folder != root and folder.is_relative_to(root)]


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
