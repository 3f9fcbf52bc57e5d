"""What is written into a bucket: objects with the names that files below a folder would have, each put as a whole.

Knows nothing of pixels. No object grows, so the journal is a row of them: one every few seconds.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from uuid import uuid4

from models.errors import UsageError
from service.errors import quoted
from service.offline.outputs import NOTES, Log, Outputs
from service.offline.remote import Bucket

_KEPT_S = 5.0  # so long lines of the journal wait for more
_KEPT_LINES = 1000


class BucketOutputs(Outputs):
    """Those below one prefix of a bucket, s3://bucket/prefix. Whether another command writes there, nobody can tell."""

    def __init__(self, url: str, formats: Sequence[str], bucket: Bucket | None = None) -> None:
        super().__init__(Path(url.partition("://")[2]), formats)
        self._url = url.rstrip("/")
        self._bucket = bucket or Bucket.of(url)
        self._suffix_of = dict(zip(formats, self.files(""), strict=True))
        self._run = uuid4().hex
        self._there: set[str] | None = None

    @property
    def where(self) -> str:
        return self._url

    def of(self, formats: Sequence[str]) -> Self:
        return type(self)(self._url, formats, self._bucket)

    def log(self) -> Log:
        return _ObjectLog(self._bucket, f"{self._url}/{NOTES}/journal")

    def __getstate__(self) -> dict[str, object]:
        """Others need not know what is there."""
        return {**self.__dict__, "_there": None}

    def there(self, file: str) -> bool:
        """Whether it was, when this was first asked: a bucket is listed once."""
        if self._there is None:
            self._there = {one.url[len(self._url) + 1 :] for one in self._bucket.below(self._url)}
        return file in self._there

    def taken(self, file: str) -> bool:
        return self.there(file)

    def remove(self, file: str, *, store: bool = False) -> None:
        if ".." not in file.split("/"):
            self._bucket.remove(f"{self._url}/{file}")

    def begin(self) -> None:
        """Says whose run this is. Raises OSError where nothing can be written."""
        self._bucket.write(f"{self._url}/{NOTES}/run", self._run.encode())

    @property
    def begun(self) -> bool:
        try:
            return self._bucket.read(f"{self._url}/{NOTES}/run").decode() == self._run
        except OSError:
            return False

    def end(self) -> None:
        self._bucket.remove(f"{self._url}/{NOTES}/run")

    def write(self, stem: str, files: Mapping[str, bytes]) -> None:
        for format, data in files.items():
            self._bucket.write(f"{self._url}/{stem}{self._suffix_of[format]}", data)

    @contextmanager
    def writing(self, file: str) -> Iterator[Path]:
        """A file that is made on this machine first."""
        folder = Path(tempfile.mkdtemp(prefix="tessera-"))
        scratch = folder / f"answer{os.path.splitext(file)[1]}"
        try:
            yield scratch
            if scratch.is_dir():
                raise UsageError("a Zarr store is written to a folder, and not into a bucket: name another --out")
            self._bucket.upload(scratch, f"{self._url}/{file}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def check_room(self) -> None:
        """Buckets have it."""


class _ObjectLog:
    """Objects whose names say their order; the last lines of a process that was killed are lost: done again."""

    def __init__(self, bucket: Bucket, at: str) -> None:
        self._bucket, self._at = bucket, at
        self.where = at
        self._lines: list[bytes] = []
        self._next, self._kept = 0, time.monotonic()

    def read(self) -> bytes | None:
        parts = self._parts()
        return b"".join(map(self._bucket.read, parts)) if parts else None

    def start(self, first: bytes) -> None:
        for part in reversed(self._parts()):
            self._bucket.remove(part)
        self._next = 0
        self._lines = [first]
        self._keep()

    def go_on(self, whole: int) -> None:
        parts = self._parts()
        self._next = int(parts[-1].rpartition("/")[2].partition(".")[0]) + 1 if parts else 0

    def append(self, line: bytes) -> None:
        self._lines.append(line)
        if len(self._lines) >= _KEPT_LINES or time.monotonic() > self._kept + _KEPT_S:
            self._keep()

    def close(self) -> None:
        self._keep()

    def _keep(self) -> None:
        if self._lines:
            self._bucket.write(f"{self._at}/{self._next:08}.jsonl", b"".join(self._lines))
            self._next += 1
        self._lines, self._kept = [], time.monotonic()

    def _parts(self) -> list[str]:
        return sorted(one.url for one in self._bucket.below(self._at))


def checked(url: str) -> str:
    """The URL of a prefix that answers can go below. Raises UsageError."""
    scheme, _, rest = url.partition("://")
    parts = rest.rstrip("/").split("/")
    if "*" in url or not all(parts) or any(part in (".", "..") for part in parts):
        raise UsageError(f"--out {quoted(url, 200)}: name a bucket and a prefix, such as {scheme}://bucket/labels")
    return f"{scheme}://{'/'.join(parts)}"
