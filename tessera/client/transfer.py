"""Bodies that are files: read from the disk as they go, written to it as they come.

Knows nothing of requests.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self
from uuid import uuid4

_PIECE_BYTES = 2**20


@contextmanager
def opened(content: bytes | Path | None) -> Iterator[bytes | BinaryIO | None]:
    """The content, a file of it open from its beginning."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            yield file
    else:
        yield content


async def pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    """A file, a megabyte at a time, read in threads."""
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        yield piece


class Taken:
    """What comes: in a file, which is there once all of it is, or, without one, in `held`."""

    def __init__(self, to: Path | None) -> None:
        self.held = b""
        self._to, self._chunks = to, list[bytes]()
        self._scratch = None if to is None else to.with_name(f".{to.name}.{uuid4().hex[:8]}")
        self._file: BinaryIO | None = None

    def add(self, chunk: bytes) -> None:
        """A further piece."""
        if self._file is None:
            self._chunks.append(chunk)
        else:
            self._file.write(chunk)

    def __enter__(self) -> Self:
        if self._scratch is not None:
            self._file = self._scratch.open("xb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        self.held = b"".join(self._chunks)
        if self._file is None or self._scratch is None or self._to is None:
            return
        self._file.close()
        if kind is None:
            os.replace(self._scratch, self._to)
        else:
            self._scratch.unlink(missing_ok=True)
