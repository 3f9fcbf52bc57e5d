"""A file's bytes without the file in memory: a slice is read where and when it is asked for.

Knows nothing of formats. Nothing is mapped: a file that is cut short meanwhile gives fewer bytes, and no signal.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.io.samples import ImageError


class FileBytes:
    """Slices of an open regular file, as `bytes` has them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> "Iterator[FileBytes]":
        """Those of a file, closed behind the block. Raises ImageError for what is no regular file, and OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageError(f"{path.name} is no regular file")
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        read = list[bytes]()
        while start < stop and (more := os.pread(self._descriptor, stop - start, start)):
            read.append(more)
            start += len(more)
        return read[0] if len(read) == 1 else b"".join(read)


def piece(data: Any, at: int, count: int) -> memoryview | bytes:
    """So many bytes of a file's: a view of those in memory; read, where they are not."""
    return data[at : at + count] if isinstance(data, FileBytes) else memoryview(data)[at : at + count]
