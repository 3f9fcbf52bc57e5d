"""Where the bytes of a task's image come from: the task itself, the one Label Studio that the operator named, or a file
below one of the operator's roots.

Nothing is fetched from anywhere else, whatever a task says: no other origin, no redirect, none of its addresses but
those of files. Knows nothing of pixels, of labels.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import httpx

from models.io.file_bytes import FileBytes
from models.io.samples import ImageError
from service.errors import BadBody, BodyTooLarge, NotAllowed, NotFound, quoted
from service.roots import Roots
from service.settings import Settings, SettingsError

_URL, _KEY = "TESSERA_LABEL_STUDIO_URL", "TESSERA_LABEL_STUDIO_KEY"
_FILES = re.compile(r"/(data|storage-data)/.+|/(tasks|projects)/[0-9]+/resolve/?")  # what it serves images under
_LOCAL = re.compile(r"/data/local-files/\?d=([^&#]+)")  # below Label Studio's own root for them
_CONNECT_S, _FETCH_S = 3.0, 20.0
_MAX_ADDRESS = 8192
_TOKEN_BYTES = 2**16


class TaskImages:
    """The source of one server's task images."""

    def __init__(self, url: str = "", key: str = "", *, max_bytes: int = 2**25, roots: Sequence[Path] = ()) -> None:
        """url  of Label Studio, with its path where it has one; empty: nothing is fetched.  key  of a user of it
        roots   folders below which files are read: those of file:// URLs, and Label Studio's local files where it has
                no url

        Raises SettingsError for a url that is none, naming the setting.
        """
        self._key, self._max_bytes, self._roots = key, max_bytes, Roots(roots)
        try:
            self._base = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL:
            raise SettingsError(f"{_URL}: {quoted(url)} is no URL") from None
        here = self._base
        if url and (here.scheme not in ("http", "https") or not here.raw_host or here.query or here.userinfo):
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
        """Around the reading of one request's images, over one connection."""
        limits = httpx.Limits(max_connections=4)
        timeout = httpx.Timeout(_FETCH_S, connect=_CONNECT_S)
        secure = self._base.scheme == "https"  # what it trusts takes 20 ms to read
        async with httpx.AsyncClient(
            verify=secure, timeout=timeout, limits=limits, follow_redirects=False, trust_env=False
        ) as client:
            yield OpenTaskImages(client, self._base, self._key, self._max_bytes, self._roots)


class OpenTaskImages:
    """The images of one request's tasks."""

    def __init__(self, client: httpx.AsyncClient, base: httpx.URL, key: str, max_bytes: int, roots: Roots) -> None:
        self._client, self._base, self._key, self._max_bytes, self._roots = client, base, key, max_bytes, roots
        self._headers: dict[str, str] | None = None
        self._signing_in = asyncio.Lock()

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
        if not self._base.raw_host and (local := _LOCAL.fullmatch(address)):
            return await self._file(unquote(local[1]), hold)
        url = self._allowed(address)
        try:
            async with asyncio.timeout(_FETCH_S):
                return await self._fetch(url, hold)
        except (httpx.HTTPError, TimeoutError) as error:
            why = f"not within {_FETCH_S:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            raise ImageError(
                f"the image could not be had from Label Studio at {self._base} ({why}); is {_URL} right?"
            ) from None

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
            raise _too_large(self._max_bytes)
        return file

    def _allowed(self, address: str) -> httpx.URL:
        """The URL to fetch. Raises NotAllowed for one that leads anywhere but to Label Studio's files."""
        shown = quoted(address, 100)
        if not self._base.raw_host:
            raise NotAllowed(f"the task's image is at {shown}: set {_URL} and {_KEY} here, or send data: URIs")
        try:
            url = httpx.URL(address if len(address) <= _MAX_ADDRESS else "")
            there = url if url.scheme or url.raw_host else self._base
        except httpx.InvalidURL:
            raise NotAllowed(f"the task's image is at {shown}, which is no URL") from None
        here = self._base
        if (there.scheme, there.raw_host, there.port) != (here.scheme, here.raw_host, here.port):
            raise NotAllowed(
                f"the task's image is at {shown}; images are fetched from {_URL} alone ({self._base}). For cloud"
                " storage switch pre-signed URLs off in Label Studio: it hands the files out itself then"
            )
        root = self._base.path.rstrip("/")
        path = url.path.removeprefix(root) if url.path.startswith(f"{root}/") else url.path
        plain = unquote(unquote(path))
        if url.userinfo or ".." in plain or "\\" in plain or "//" in plain or not _FILES.fullmatch(path):
            raise NotAllowed(
                f"the task's image is at {shown}, which is none of the paths that Label Studio has files at"
            )
        return self._base.copy_with(path=root + path, query=url.query or None)

    async def _fetch(self, url: httpx.URL, hold: Callable[[int], None]) -> bytes:
        headers = {**await self._signed_in(), "accept-encoding": "identity"}
        async with self._client.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 200:
                raise ImageError(_refused(answer.status_code))
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ImageError("Label Studio compresses the image on the way, which nobody asked it for")
            chunks: list[bytes] = []
            size = 0
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > self._max_bytes:
                    raise _too_large(self._max_bytes)
                hold(len(chunk))
                chunks.append(chunk)
        return b"".join(chunks)

    async def _signed_in(self) -> dict[str, str]:
        """The header that says who asks. A personal access token, which has two dots, is first changed for another."""
        if not self._key:
            return {}
        if self._key.count(".") != 2:
            return {"authorization": f"Token {self._key}"}
        async with self._signing_in:
            if self._headers is None:
                url = self._base.copy_with(path=self._base.path.rstrip("/") + "/api/token/refresh/")
                async with self._client.stream("POST", url, json={"refresh": self._key}) as answer:
                    if answer.status_code != 200:
                        raise ImageError(_refused(answer.status_code))
                    said = await anext(answer.aiter_bytes(_TOKEN_BYTES), b"")
                try:
                    token = httpx.Response(200, content=said).json()["access"]
                    self._headers = {"authorization": f"Bearer {str(token).encode('ascii').decode()}"}
                except (ValueError, KeyError, TypeError):
                    raise ImageError(f"Label Studio gave no access for the token in {_KEY}") from None
        return self._headers


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


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the task's image has more than {max_bytes / 2**20:.0f} MiB (TESSERA_MAX_BYTES)")


def _refused(status: int) -> str:
    if status in (401, 403):
        return f"Label Studio does not let the key in {_KEY} see the image ({status})"
    if 300 <= status < 400:
        return f"Label Studio answers with a redirect ({status}), which is not followed; switch pre-signed URLs off"
    return f"Label Studio answered {status} where the task's image should be"
