"""Arrays on disk that are read and written by rows, and a list of which blocks of a long work are done.

Knows nothing of what the rows hold. Files are not mapped: what was read or written takes no memory afterwards, and
several processes, on several machines too, may write rows of one file side by side.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from models.errors import TesseraError
from models.files import write_atomically
from models.types import Array
from training import distributed

_SECONDS_AT_RISK = 2.0  # of work that a machine without power may lose


class RowFile:
    """A .npy file of shape [n, ...]: `file[i]` is one row, `file[[i, j]]` some, `file[2:5]` a stretch of them.

    Raises TesseraError for a damaged file and a full disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            header = np.load(path, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise TesseraError(f"{path} is damaged ({error}): delete it, and it is made anew") from None
        self.shape, self.dtype, self._start = header.shape, header.dtype, int(header.offset)
        self._row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        self._file = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...], dtype: str) -> "RowFile":
        """A new file of zeros, which takes its room on the disk as it is filled; it is there whole or not at all."""

        def write(file: object) -> None:
            np.lib.format.open_memmap(file.name, mode="w+", dtype=np.dtype(dtype), shape=shape)  # type: ignore[attr-defined]

        write_atomically(path, write)
        return cls(path)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, which: int | slice | Sequence[int] | Array) -> Array:
        if isinstance(which, slice):
            first, stop, _ = which.indices(len(self))
            return self._read(first, max(0, stop - first))
        if isinstance(which, (int, np.integer)):
            one: Array = self._read(int(which), 1)[0]
            return one
        rows = [self._read(int(i), 1)[0] for i in which]
        return np.stack(rows) if rows else np.empty((0, *self.shape[1:]), self.dtype)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> Array:
        return self[:]

    def __setitem__(self, which: slice, values: Array) -> None:
        """Writes a stretch of rows."""
        data = _bytes_of(np.ascontiguousarray(values, dtype=self.dtype))
        at = self._start + which.start * self._row
        while data:
            try:
                written = os.pwrite(self._file, data, at)
            except OSError as error:
                raise TesseraError(
                    f"{self.path}: {error.strerror}. What was written before it is kept: make room, then go on"
                ) from None
            at, data = at + written, data[written:]

    def _read(self, first: int, count: int) -> Array:
        found = np.empty((count, *self.shape[1:]), self.dtype)
        into = _bytes_of(found)
        at = self._start + first * self._row
        while into:
            got = os.preadv(self._file, [into], at)
            if not got:
                raise TesseraError(f"{self.path} is damaged (it ends early): delete it, and it is made anew")
            at, into = at + got, into[got:]
        return found

    def sync(self) -> None:
        """Returns when what was written is on the disk."""
        os.fsync(self._file)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def _bytes_of(array: Array) -> memoryview:
    return array.data.cast("B") if array.size else memoryview(b"")


class Ledger:
    """Which blocks of a work are done: a byte each, set once what the block wrote is on the disk."""

    def __init__(self, path: Path, blocks: int) -> None:
        found = RowFile(path) if path.exists() else RowFile.create(path, (blocks,), "uint8")
        self._done = found if found.shape == (blocks,) else RowFile.create(path, (blocks,), "uint8")
        self._waiting: list[int] = []
        self._since = time.monotonic()

    def todo(self) -> Array:
        """The blocks that are not done, by number: int64 [m]."""
        return np.flatnonzero(self._done[:] == 0)

    @contextmanager
    def kept(self, *files: RowFile) -> Iterator["Ledger"]:
        """The block of code that calls `add`; what was added before an error is done all the same."""
        self._files = files
        try:
            yield self
        finally:
            self._settle()

    def add(self, block: int) -> None:
        """Everything of the block was written."""
        self._waiting.append(block)
        if time.monotonic() - self._since > _SECONDS_AT_RISK:
            self._settle()

    def _settle(self) -> None:
        for file in self._files:
            file.sync()
        for block in self._waiting:
            self._done[block : block + 1] = np.ones(1, np.uint8)
        self._done.sync()
        self._waiting, self._since = [], time.monotonic()


@contextmanager
def divided(done: Path, blocks: int, *files: RowFile) -> Iterator[tuple[Ledger, list[int]]]:
    """A list of what is done, and the blocks of the rest that are this process's; ends when all of them are done."""
    with distributed.main_first():
        ledger = Ledger(done, blocks)
    todo = ledger.todo()
    distributed.barrier()  # nobody marks a block before all have seen which are left
    with ledger.kept(*files):
        yield ledger, todo[distributed.rank() :: distributed.world()].tolist()
    distributed.barrier()
