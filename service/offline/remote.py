"""Images in buckets, by their URL: s3://, gs://, az://. fsspec and what it needs of each are the extra `remote`.

Knows nothing of images. Keys and endpoints are those of each library's own environment (AWS_…, GOOGLE_…, AZURE_…).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import UsageError
from models.extras import brings
from service.errors import quoted

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://")
_SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "memory")


class RemoteFile(NamedTuple):
    """An object: its URL, its bytes, and what changes when it does."""

    url: str
    size: int
    stamp: str


def is_url(word: str) -> bool:
    """Whether somebody means an URL, of any kind."""
    return _URL.match(word) is not None


@dataclass(frozen=True)
class Bucket:
    """What stands behind the URLs of one scheme."""

    scheme: str
    _files: Any

    @classmethod
    def of(cls, url: str) -> "Bucket":
        """Whose URL it is. Raises UsageError for a scheme that is not read, and where a library is missing."""
        scheme = url.partition("://")[0]
        if scheme not in _SCHEMES:
            raise UsageError(
                f"{quoted(url, 200)}: of URLs those of buckets are read (s3://, gs://, az://); download the file first"
            )
        try:
            import fsspec

            return cls(scheme, fsspec.filesystem(scheme))
        except ImportError as error:
            raise UsageError(
                f"{scheme}:// needs a package that is not installed ({error.name or error}): {brings('remote')}"
            ) from None

    def below(self, url: str) -> Iterator[RemoteFile]:
        """The object of an URL, all below it, or those that fit its pattern, in no order. Raises UsageError."""
        try:
            found = (self._files.glob if "*" in url else self._files.find)(url, detail=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise UsageError(f"{quoted(url, 200)} cannot be listed: {said(error)}") from None
        for name, facts in found.items():
            if facts.get("type") != "directory":
                yield RemoteFile(f"{self.scheme}://{name.lstrip('/')}", int(facts.get("size") or 0), _stamp(facts))

    def read(self, url: str) -> bytes:
        """An object's bytes. Raises OSError."""
        with _as_os_error():
            data: bytes = self._files.cat_file(url)
            return data

    def write(self, url: str, data: bytes) -> None:
        """An object, there as a whole or not at all. Raises OSError."""
        with _as_os_error():
            self._files.pipe_file(url, data)

    def upload(self, path: Path, url: str) -> None:
        """An object from a file, likewise. Raises OSError."""
        with _as_os_error():
            self._files.put_file(str(path), url)

    def remove(self, url: str) -> None:
        """No such object any more, if there was one. Raises OSError."""
        with _as_os_error(), suppress(FileNotFoundError):
            self._files.rm_file(url)

    def close(self) -> None:
        """Nothing is held."""

    def __reduce__(self) -> tuple[object, ...]:
        """In another process it is connected there."""
        return _connected, (self.scheme,)


@cache
def _connected(scheme: str) -> Bucket:
    return Bucket.of(f"{scheme}://")


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Each of the libraries has its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(said(error)) from None


def said(error: Exception) -> str:
    """What one of the libraries says, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _stamp(facts: Any) -> str:
    """What changes when an object does: its checksum, or its time."""
    known = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated", "mtime", "created")
    return str(next((facts[name] for name in known if facts.get(name)), ""))
