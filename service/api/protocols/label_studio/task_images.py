"""Where the bytes of a task's image come from: the task itself, the one Label Studio that the operator named, or a file
below one of the operator's roots.

Knows nothing of pixels, of labels, of how files are fetched.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import unquote, urlsplit

from models.io.file_bytes import FileBytes
from service.errors import BadBody, BodyTooLarge, NotAllowed, NotFound, quoted
from service.roots import Roots
from service.settings import Settings, SettingsError

_URL, _KEY = "TESSERA_LABEL_STUDIO_URL", "TESSERA_LABEL_STUDIO_KEY"
_LOCAL = re.compile(r"/data/local-files/\?d=([^&#]+)")  # below Label Studio's own root for them


class Files(Protocol):
    """What is somewhere else (`fetching.LabelStudioFiles`)."""

    async def read(self, address: str, hold: Callable[[int], None]) -> bytes:
        """A file's bytes."""
        ...


class TaskImages:
    """The source of one server's task images."""

    def __init__(self, url: str = "", key: str = "", *, max_bytes: int = 2**25, roots: Sequence[Path] = ()) -> None:
        """url  of Label Studio, with its path where it has one; empty: nothing is fetched.  key  of a user of it
        roots   folders below which files are read: those of file:// URLs, and Label Studio's local files where it has
                no url

        Raises SettingsError for a url that is none, naming the setting.
        """
        self._url, self._key, self._max_bytes, self._roots = url.rstrip("/"), key, max_bytes, Roots(roots)
        if url and not _is_address(url):
            raise SettingsError(f"{_URL}: {quoted(url)}; write for instance https://labels.example.org")
        if key and not url:
            raise SettingsError(f"{_KEY} is of no use without {_URL}")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """That of TESSERA_LABEL_STUDIO_URL and TESSERA_ROOTS. Raises SettingsError."""
        url, key = settings.label_studio_url, settings.label_studio_key
        return cls(url, key, max_bytes=settings.max_bytes, roots=settings.roots)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["OpenTaskImages"]:
        """Around the reading of one request's images."""
        if not self._url:
            yield OpenTaskImages(None, self._max_bytes, self._roots)
            return
        from service.api.protocols.label_studio.fetching import LabelStudioFiles

        async with LabelStudioFiles.connected(self._url, self._key, self._max_bytes) as files:
            yield OpenTaskImages(files, self._max_bytes, self._roots)


class OpenTaskImages:
    """The images of one request's tasks."""

    def __init__(self, files: Files | None, max_bytes: int, roots: Roots) -> None:
        self._files, self._max_bytes, self._roots = files, max_bytes, roots

    async def read(self, address: str, hold: Callable[[int], None]) -> bytes:
        """The file's bytes.

        address  as a task has it: a data: URI, a path of Label Studio's, such a path with its origin, a file:// URL
        hold     is told of every byte read, and may refuse

        Raises BadBody, BadOption, NotAllowed, NotFound, BodyTooLarge, ImageError, which say what to change.
        """
        scheme = address[:5].lower()
        if scheme == "data:":
            return _inline(address)
        if scheme == "file:":
            return await self._file(address, hold)
        if self._files is not None:
            return await self._files.read(address, hold)
        if local := _LOCAL.fullmatch(address):
            return await self._file(unquote(local[1]), hold)
        shown = quoted(address, 100)
        raise NotAllowed(f"the task's image is at {shown}: set {_URL} and {_KEY} here, or send data: URIs")

    async def _file(self, path: str, hold: Callable[[int], None]) -> bytes:
        """A file below a root."""
        found = (await asyncio.to_thread(self._roots.resolve, path)).path

        def read() -> bytes:
            with FileBytes.open(found) as data:
                return data[: self._max_bytes + 1]

        try:
            hold(min(found.stat().st_size, self._max_bytes))
            file = await asyncio.to_thread(read)
        except OSError as error:
            raise NotFound(f"{quoted(path, 200)} cannot be read: {error.strerror}") from None
        if len(file) > self._max_bytes:
            raise BodyTooLarge(f"the task's image has more than {self._max_bytes / 2**20:.0f} MiB (TESSERA_MAX_BYTES)")
        return file


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(known) and not (parts.query or parts.fragment or "@" in parts.netloc) and url.isascii()


def _inline(address: str) -> bytes:
    head, comma, text = address.partition(",")
    try:
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadBody(
            "the task's data: URI is damaged; it begins as data:image/jpeg;base64, and goes on as that"
        ) from None
