"""What is written: a tree like that of the images, a file for each format, each there as a whole or not at all.

Knows nothing of pixels, or of where images come from.
"""

import errno
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Protocol, Self
from uuid import uuid4

from models.errors import TesseraError
from models.files import write_atomically
from service.formats import registry
from service.offline.sources import Item

NOTES = ".tessera"  # the folder, below that of the outputs, of what is not for people
NAME = "journal.jsonl"  # in it
STORE = ".zarr"  # whatever the formats are: its label image is in it
_LEAST_BYTES = 32 * 2**20  # of room on the disk, below which nothing is begun


class DiskFull(TesseraError):
    """No room is left; what is written so far stays."""


class Log(Protocol):
    """Lines that are only ever added to.

    where  they lie, for people
    """

    where: str

    def read(self) -> bytes | None:
        """All of them; None where there is no log. Raises OSError."""

    def start(self, first: bytes) -> None:
        """A new one, with one line, in place of what was there; open for more. Raises DiskFull, OSError."""

    def go_on(self, whole: int) -> None:
        """Open for more, behind so many bytes."""

    def append(self, line: bytes) -> None:
        """One more. Raises DiskFull, OSError."""

    def close(self) -> None:
        """No more of them."""


class Outputs:
    """Those below one folder, which is there.

    formats      a file for each of them
    least_bytes  of room on the disk, below which nothing is begun

    They travel to other processes, which write beside this one until it calls `end`, or another begins there.
    """

    def __init__(self, folder: Path, formats: Sequence[str], least_bytes: int = _LEAST_BYTES) -> None:
        self.folder = folder
        self._suffixes = {format: registry.suffix(format) for format in formats}
        self._least_bytes = least_bytes
        self._scratches = folder / NOTES / "unfinished"
        self._scratch = self._scratches / uuid4().hex  # whoever is left of an earlier run finds its own gone
        self._made: set[Path] = set()

    def begin(self) -> None:
        """Clears away what a process that was killed had not finished, and bars what it left running."""
        shutil.rmtree(self._scratches, ignore_errors=True)
        self._scratch.mkdir(parents=True)

    @property
    def where(self) -> str:
        """What people call the place."""
        return str(self.folder)

    def of(self, formats: Sequence[str]) -> Self:
        """The same place, of other formats."""
        return type(self)(self.folder, formats, self._least_bytes)

    def log(self) -> Log:
        """What of them is done, for who goes on; not yet open."""
        return _FileLog(self.folder)

    def there(self, file: str) -> bool:
        """Whether a file, or a folder, was written."""
        return (self.folder / file).exists()

    def taken(self, file: str) -> bool:
        """Whether its place is taken, be it by a link that leads nowhere."""
        return os.path.lexists(self.folder / file)

    def remove(self, file: str, *, store: bool = False) -> None:
        """Removes a file that was written, or the folder that is one; nothing that lies elsewhere."""
        top = self.folder.resolve()
        path = top / file
        if not path.parent.resolve().is_relative_to(top):
            return
        if store and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    @property
    def begun(self) -> bool:
        """Whether that is seen from here: elsewhere a path may lead to another folder."""
        return self._scratch.is_dir()

    def end(self) -> None:
        """Leaves nothing of its own behind."""
        shutil.rmtree(self._scratches, ignore_errors=True)

    def files(self, stem: str, *, store: bool = False) -> list[str]:
        """What is written of an image whose outputs are called `stem`, below the folder; of a store that is one."""
        return [stem + STORE] if store else [stem + suffix for suffix in self._suffixes.values()]

    def stems(self, items: Sequence[Item], known: Mapping[str, str]) -> list[str]:
        """What the outputs of each image are called, without a format's suffix; no two alike, and none like an image.

        An image's name without its suffix, with it where several have the same name or the file would be an image that
        is asked for, and with a number behind that where even these are not enough. Names that differ in the size of
        letters alone count as alike: other systems hold them for one.

        known  source → what its outputs were called before, which stays so
        """
        taken = {_folded(file) for stem in known.values() for file in [*self.files(stem), stem + STORE]}
        taken |= set(self._inputs(items))
        fresh = Counter(_folded(_stem(item.name)) for item in items if item.source not in known)
        return [known.get(item.source) or self._free(item, fresh, taken) for item in items]

    def write(self, stem: str, files: Mapping[str, bytes]) -> None:
        """An image's answers, by format. Raises DiskFull, and OSError for what else cannot be written."""
        for format, data in files.items():
            with self.writing(stem + self._suffixes[format]) as scratch:
                scratch.write_bytes(data)

    @contextmanager
    def writing(self, file: str) -> Iterator[Path]:
        """Where a file, or a folder, below that of the outputs is to be written: it is there when the block ends.

        Raises what `write` raises; nothing is left then.
        """
        path, scratch = self.folder / file, self._scratch / f"{uuid4().hex}{os.path.splitext(file)[1]}"
        try:
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent)
            yield scratch
            if scratch.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            os.replace(scratch, path)
        except OSError as error:
            raise full(error, self.folder) or error from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True) if scratch.is_dir() else scratch.unlink(missing_ok=True)

    def check_room(self) -> None:
        """Raises DiskFull where hardly any is left."""
        if shutil.disk_usage(self.folder).free < self._least_bytes:
            raise _no_room(self.folder)

    def _free(self, item: Item, fresh: Counter[str], taken: set[str]) -> str:
        short = _stem(item.name)
        for stem in self._candidates(item.name, alone=fresh[_folded(short)] == 1):
            files = {_folded(file) for file in self.files(stem, store=item.store)}
            if not files & taken:
                taken |= files
                return stem
        raise AssertionError("numbers do not end")

    def _candidates(self, name: str, *, alone: bool) -> Iterator[str]:
        if alone:
            yield _stem(name)
        yield name
        yield from (f"{name}-{number}" for number in count(2))

    def _inputs(self, items: Collection[Item]) -> Iterator[str]:
        """Images that lie below the folder of the outputs."""
        below = os.path.realpath(self.folder) + os.sep
        for item in items:
            if item.path is not None and item.source.startswith(below):
                yield _folded(item.source[len(below) :])


class _FileLog:
    """A file that grows."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / NOTES / NAME
        self.where = str(self._path)
        self._file: int | None = None

    def read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def start(self, first: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, lambda file: file.write(first))
        self.go_on(len(first))

    def go_on(self, whole: int) -> None:
        os.truncate(self._path, whole)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def append(self, line: bytes) -> None:
        assert self._file is not None
        try:
            os.write(self._file, line)
        except OSError as error:
            raise full(error, self._folder) or error from None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)


def full(error: OSError, folder: Path) -> DiskFull | None:
    """What to tell of an error that says that a disk is full; None for another."""
    return _no_room(folder) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None


def _no_room(folder: Path) -> DiskFull:
    return DiskFull(f"the disk is full ({folder}): make room, and go on; what is written so far stays as it is")


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
