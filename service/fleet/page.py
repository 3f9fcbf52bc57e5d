"""Counts that the workers of one host share: a page of memory for each, in which it alone writes and all read.

A worker writes its number with one store of eight bytes and reads the others' with one load each, so no request waits
for another process, and a worker that dies in the middle of it leaves nothing locked. Whoever ends a worker's name
fills its page with zeros (`supervisor.py`): what it had inside is not inside any more. The first field, `beats`, grows
while the worker's loop goes on, which the supervisor looks at.

A page is an array of eight-byte fields: the counts, then for every tally rows of a name's digest and its number. A name
lies in one of the few rows that its digest picks; where all of these are taken, this name counts for its worker alone.
Marks lie in a page of all, changed under a lock of the file.

Knows nothing of what is counted.
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias

from service.fleet.counts import Count, Marks, Tally

COUNTS = ("beats", "images", "mpx", "bytes", "working_bytes", "rate", "asked", "requests", "connections")
TALLIES = ("images", "requests", "connections")  # of a key, of a client, of a client
MARKS = ("wrong_keys", "came_in")
_Numbers: TypeAlias = "memoryview[float]"
_ROWS = 4096  # of a tally, or of marks
_NEAR = 16  # of them that a digest picks
_FIELD = 8
_OWN_BYTES = _FIELD * (len(COUNTS) + 2 * _ROWS * len(TALLIES))
_ALL_BYTES = _FIELD * 2 * _ROWS * len(MARKS)


def create(folder: Path, members: Iterable[str]) -> None:
    """The pages of these workers, all of them zero."""
    for name, size in [*((member, _OWN_BYTES) for member in members), ("all", _ALL_BYTES)]:
        with _file(folder, name).open("xb") as file:
            file.write(bytes(size))


class Page:
    """All pages, as one worker sees them. What an earlier one of its name left is forgotten."""

    def __init__(self, folder: Path, members: Sequence[str], member: str) -> None:
        self._own = _mapped(_file(folder, member), _OWN_BYTES)
        self._own[:] = bytes(_OWN_BYTES)
        self._others = [_mapped(_file(folder, other), _OWN_BYTES) for other in members if other != member]
        self._all = _file(folder, "all")

    def count(self, name: str) -> Count:
        """One of COUNTS."""
        start = _FIELD * COUNTS.index(name)
        return _Count(*(_numbers(page, start, 1) for page in (self._own, *self._others)))

    def tally(self, name: str) -> Tally:
        """One of TALLIES."""
        start = _FIELD * (len(COUNTS) + 2 * _ROWS * TALLIES.index(name))
        return _Tally(*(_Rows(page, start) for page in (self._own, *self._others)))

    def marks(self, name: str) -> Marks:
        """One of MARKS."""
        return _Marks(_Rows(_mapped(self._all, _ALL_BYTES), _FIELD * 2 * _ROWS * MARKS.index(name)), self._all)


class _Count(Count):
    def __init__(self, own: _Numbers, *others: _Numbers) -> None:
        super().__init__()
        self._here, self._others = own, others

    @property
    def total(self) -> float:
        total = self.own
        for other in self._others:
            total += other[0]
        return total

    @property
    def highest(self) -> float:
        return max(self.own, *(other[0] for other in self._others))

    def set(self, value: float) -> None:
        self.own = self._here[0] = value


class _Rows:
    """Rows of one page: digests, and a number beside each."""

    def __init__(self, page: memoryview, start: int) -> None:
        self._digests = page[start : start + _FIELD * _ROWS].cast("Q")
        self.numbers = _numbers(page, start + _FIELD * _ROWS, _ROWS)

    def find(self, digest: int) -> int | None:
        """The row of a name; None where it has none."""
        for row in _near(digest):
            if (found := self._digests[row]) == digest:
                return row
            if not found:  # it was never taken, so none behind it is this one's
                return None
        return None

    def take(self, digest: int) -> int:
        """A row for a name that has none: of those it may have, the one with the smallest number."""
        row = min(_near(digest), key=self.numbers.__getitem__)
        self.numbers[row] = 0
        self._digests[row] = digest
        return row


class _Tally(Tally):
    def __init__(self, own: _Rows, *others: _Rows) -> None:
        super().__init__()
        self._here, self._others = own, others
        self._rows: dict[str, int] = {}

    def total(self, name: str) -> int:
        digest = _digest(name)
        total = super().total(name)
        for other in self._others:
            if (row := other.find(digest)) is not None:
                total += int(other.numbers[row])
        return total

    def add(self, name: str, more: int) -> None:
        super().add(name, more)
        count = self._own.get(name, 0)
        row = self._rows.get(name)
        if row is None:
            digest = _digest(name)
            row = self._here.find(digest)
            if row is None:
                row = self._here.take(digest) if self._room(digest) else -1
            self._rows[name] = row
        if row >= 0:
            self._here.numbers[row] = count
        if not count:
            del self._rows[name]

    def _room(self, digest: int) -> bool:
        return any(not self._here.numbers[row] for row in _near(digest))


class _Marks(Marks):
    def __init__(self, rows: _Rows, file: Path) -> None:
        super().__init__()
        self._rows, self._file = rows, file

    def get(self, name: bytes) -> float:
        row = self._rows.find(_of_bytes(name))
        return 0.0 if row is None else self._rows.numbers[row]

    def change(self, name: bytes, change: Callable[[float], float]) -> None:
        digest = _of_bytes(name)
        with _locked(self._file):
            row = self._rows.find(digest)
            before = 0.0 if row is None else self._rows.numbers[row]
            self._rows.numbers[self._rows.take(digest) if row is None else row] = change(before)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """For the microseconds of one change; a process that dies lets go."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _near(digest: int) -> Iterator[int]:
    return (row % _ROWS for row in range(digest % _ROWS, digest % _ROWS + _NEAR))


@lru_cache(4096)
def _digest(name: str) -> int:
    return _of_bytes(name.encode())


def _of_bytes(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little") or 1


def _numbers(page: memoryview, start: int, count: int) -> _Numbers:
    return page[start : start + _FIELD * count].cast("d")


def _mapped(file: Path, size: int) -> memoryview:
    with file.open("r+b") as opened:
        return memoryview(mmap.mmap(opened.fileno(), size))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.page"
