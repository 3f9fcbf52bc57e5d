"""Files of the one Label Studio that the operator named: no other origin, no redirect, no address but those of files.

Knows nothing of tasks, of pixels. Importing it takes 0.2 s, for httpx: that is done where there is something to fetch.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import unquote

import httpx

from models.io.samples import ImageError
from service.errors import BodyTooLarge, NotAllowed, quoted
from service.tracing.setup import outgoing_headers

_URL, _KEY = "TESSERA_LABEL_STUDIO_URL", "TESSERA_LABEL_STUDIO_KEY"
_FILES = re.compile(r"/(data|storage-data)/.+|/(tasks|projects)/[0-9]+/resolve/?")  # what it serves images under
_CONNECT_S, _FETCH_S = 3.0, 20.0
_MAX_ADDRESS = 8192
_TOKEN_BYTES = 2**16


class LabelStudioFiles:
    """Those of one Label Studio, over connections that are kept for a while."""

    def __init__(self, client: httpx.AsyncClient, url: str, key: str, max_bytes: int) -> None:
        self._client, self._base, self._key, self._max_bytes = client, httpx.URL(url), key, max_bytes
        self._headers: dict[str, str] | None = None
        self._signing_in = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, key: str, max_bytes: int) -> AsyncIterator[Self]:
        """Around the reading of some of them."""
        limits = httpx.Limits(max_connections=4)
        timeout = httpx.Timeout(_FETCH_S, connect=_CONNECT_S)
        secure = url.startswith("https:")  # what it trusts takes 20 ms to read
        async with httpx.AsyncClient(
            verify=secure, timeout=timeout, limits=limits, follow_redirects=False, trust_env=False
        ) as client:
            yield cls(client, url, key, max_bytes)

    async def read(self, address: str, hold: Callable[[int], None]) -> bytes:
        """A file's bytes. `hold` is told of them, and may refuse. Raises NotAllowed, BodyTooLarge, ImageError."""
        url = self._allowed(address)
        try:
            async with asyncio.timeout(_FETCH_S):
                return await self._fetch(url, hold)
        except (httpx.HTTPError, TimeoutError) as error:
            why = f"not within {_FETCH_S:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            raise ImageError(
                f"the image could not be had from Label Studio at {self._base} ({why}); is {_URL} right?"
            ) from None

    def _allowed(self, address: str) -> httpx.URL:
        """The URL to fetch. Raises NotAllowed for one that leads anywhere but to Label Studio's files."""
        shown = quoted(address, 100)
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
        headers = {**await self._signed_in(), **outgoing_headers(), "accept-encoding": "identity"}
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
                    raise too_large(self._max_bytes)
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


def too_large(max_bytes: int) -> BodyTooLarge:
    """What is said of an image with more bytes."""
    return BodyTooLarge(f"the task's image has more than {max_bytes / 2**20:.0f} MiB (TESSERA_MAX_BYTES)")


def _refused(status: int) -> str:
    if status in (401, 403):
        return f"Label Studio does not let the key in {_KEY} see the image ({status})"
    if 300 <= status < 400:
        return f"Label Studio answers with a redirect ({status}), which is not followed; switch pre-signed URLs off"
    return f"Label Studio answered {status} where the task's image should be"
