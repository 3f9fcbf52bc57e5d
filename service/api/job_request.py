"""What `POST /jobs` is asked: a zip that goes to the disk as it comes, a form around one, or JSON that names a folder.

Knows nothing of what a job does. Nothing is held in memory but the piece that has just come: a client sends as slowly
as it may, and no slower.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request
from pydantic import Field, field_validator
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.request import checked, query_options
from service.errors import BadBody, BadOption, BodyTooSlow, UnsupportedEncoding, nearest, quoted
from service.formats import registry
from service.inference.options import Options
from service.jobs.jobs import Upload, Wanted

CURL = "curl --data-binary @photos.zip"
_LEAST_BYTES = 2**18  # that come in each TESSERA_BODY_TIMEOUT_S
_JSON_BYTES = 2**16
_MAX_FIELDS, _MAX_FIELD_BYTES, _MAX_HEADER_BYTES = 64, 8192, 8192
_WRITE_BYTES = 2**20
_BOUNDARY_LINE = re.compile(rb"--([^\r\n]{1,200})\r\n")


class JobOptions(Options):
    """The options of `POST /jobs`: those of one image, and a file in each of several formats."""

    format: str | None = Field(
        default=None,
        max_length=200,
        description=f"one or several of {', '.join(registry.names())}, between commas: a file of each; absent, png",
    )

    @field_validator("format")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        names = registry.names()
        for name in (value or "png").split(","):
            if name not in names:
                raise ValueError(f"no format {quoted(name, 40)}{registry.hint(name) or nearest(name.lower(), names)}")
        if len(set(wanted := (value or "png").split(","))) < len(wanted):
            raise ValueError("a format is given twice")
        return value


def wanted(given: Mapping[str, str], options: JobOptions) -> Wanted:
    """What is asked of every image."""
    kept = {name: value for name, value in given.items() if name not in ("format", "model")}
    return Wanted(kept, tuple((options.format or "png").split(",")), options.model or "")


def options_in_query(request: Request) -> tuple[dict[str, str], JobOptions]:
    """What the query says. Raises BadOption."""
    given, options = query_options(JobOptions, request.scope["query_string"])
    assert options is not None
    return dict(given), options


def options_with(given: Mapping[str, str], more: Mapping[str, str]) -> tuple[dict[str, str], JobOptions]:
    """What the query and the body say together. Raises BadOption."""
    if twice := given.keys() & more.keys():
        raise BadOption(f"{quoted(min(twice))}: given twice, in the query and in the body")
    both = {**given, **more}
    return both, checked(JobOptions, both)


class JobBody:
    """The body of one request, read once.

    first  its first bytes, at least one

    Raises BadBody and its kin, BodyTooSlow; ClientDisconnect when the client leaves.
    """

    def __init__(self, request: Request, timeout_s: float) -> None:
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise UnsupportedEncoding(f"Content-Encoding {quoted(encoding, 40)} is not opened; send the body as it is")
        self._request, self._timeout_s = request, timeout_s
        self._pieces = self._paced()
        self.first = b""

    @property
    def declared(self) -> int | None:
        """The length that its head says."""
        declared = self._request.headers.get("content-length", "")
        return int(declared) if declared.isdecimal() else None

    async def begin(self) -> None:
        """Wait for its first bytes."""
        while len(self.first) < 4:
            piece = await anext(self._pieces, None)
            if piece is None:
                break
            self.first += piece
        if not self.first:
            raise BadBody(f'the body is empty; send a zip: {CURL} …, or JSON: {{"path": "a folder below a root"}}')

    @property
    def is_json(self) -> bool:
        """Whether it begins as JSON does."""
        return self.first.lstrip().startswith(b"{")

    async def json(self) -> tuple[str, dict[str, str]]:
        """A folder, and options given beside it."""
        data = self.first
        async for piece in self._pieces:
            data += piece
            if len(data) > _JSON_BYTES:
                raise BadBody(f"the JSON has more than {_JSON_BYTES // 1024} KiB; it names a folder and options")
        self._request.state.unread = False
        try:
            document = from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise BadBody(f"the body begins as JSON but is not: {error}") from None
        path = document.pop("path", None)
        if not isinstance(path, str):
            raise BadOption('path: JSON names a folder: {"path": "photos/2026", "format": "png,json"}')
        return path, {name: _text(name, value) for name, value in document.items()}

    async def save(self, upload: Upload) -> dict[str, str]:
        """A zip, or the one in a form, into the upload; options given beside it."""
        kind, parameters = parse_options_header(self._request.headers.get("content-type", ""))
        if self.first.startswith(b"--"):
            boundary = parameters.get(b"boundary") if kind == b"multipart/form-data" else None
            if not boundary and (found := _BOUNDARY_LINE.match(self.first)):
                boundary = found[1]
            if not boundary:
                raise BadBody(
                    f"the multipart body is malformed: it names no boundary; let your client make it, or {CURL} …"
                )
            return await self._save_form(upload, boundary)
        if not self.first.startswith(b"PK"):
            raise BadBody(f"the body is no zip; send one: {CURL} …, curl -F file=@photos.zip …, or JSON with a path")
        held = bytearray(self.first)
        async for piece in self._pieces:
            held += piece
            if len(held) >= _WRITE_BYTES:
                await upload.write(bytes(held))
                held.clear()
        await upload.write(bytes(held))
        self._request.state.unread = False
        return {}

    async def _save_form(self, upload: Upload, boundary: bytes) -> dict[str, str]:
        form = _Form(boundary)
        try:
            form.feed(self.first)
            async for piece in self._pieces:
                form.feed(piece)
                if len(form.file) >= _WRITE_BYTES:
                    await upload.write(form.taken())
            form.end()
        except FormParserError:
            raise BadBody(
                "the multipart body is malformed or cut off; let your client make it: curl -F file=@photos.zip …"
            ) from None
        await upload.write(form.taken())
        self._request.state.unread = False
        return form.fields

    async def _paced(self) -> AsyncIterator[bytes]:
        """Its pieces, as long as enough of them come."""
        stream = self._request.stream()
        came = since = 0
        loop = asyncio.get_running_loop()
        late = loop.time() + self._timeout_s
        while True:
            try:
                async with asyncio.timeout_at(late):
                    piece = await anext(stream, None)
            except TimeoutError:
                raise BodyTooSlow(
                    f"after {came} bytes fewer than {_LEAST_BYTES // 1024} KiB came in {self._timeout_s:g} s"
                    " (TESSERA_BODY_TIMEOUT_S); send it over a faster line"
                ) from None
            if piece is None:
                return
            came, since = came + len(piece), since + len(piece)
            if since >= _LEAST_BYTES:
                since, late = 0, loop.time() + self._timeout_s
            if piece:
                yield piece


class _Form:
    """A form that is read as it comes: one file, and small fields.

    file  what has come of the file and was not taken yet
    """

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        self.file = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = bytearray(), bytearray()
        self._field: str | None = None
        self._data = bytearray()
        self._files, self._ended = 0, False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda d, a, b: self._grow(self._name, d[a:b], _MAX_HEADER_BYTES),
                "on_header_value": lambda d, a, b: self._grow(self._value, d[a:b], _MAX_HEADER_BYTES),
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._part_data,
                "on_part_end": self._close,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Its next bytes. Raises FormParserError, BadBody, BadOption."""
        self._parser.write(data)

    def end(self) -> None:
        """Nothing more comes. Raises FormParserError, BadBody."""
        self._parser.finalize()
        if not self._ended:
            raise FormParserError("cut off")
        if not self._files:
            raise BadBody("the form has no file; send the zip as one: curl -F file=@photos.zip …")

    def taken(self) -> bytes:
        """What has come of the file, taken out."""
        data = bytes(self.file)
        self.file.clear()
        return data

    def _grow(self, buffer: bytearray, data: bytes, most: int) -> None:
        if len(buffer) + len(data) > most:
            raise BadBody(f"a field of the form has more than {most} bytes")
        buffer += data

    def _begin(self) -> None:
        self._headers.clear()
        if len(self.fields) >= _MAX_FIELDS:
            raise BadBody(f"the form has more than {_MAX_FIELDS} fields")

    def _header_end(self) -> None:
        if len(self._headers) >= _MAX_FIELDS:
            raise BadBody("a part of the form has too many headers")
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _open(self) -> None:
        _, disposition = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = disposition.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in disposition:
            self._files += 1
            if self._files > 1:
                raise BadBody("the form has several files; send one zip")
            self._field = None
        elif name in self.fields:
            raise BadOption(f"{quoted(name)}: given twice")
        else:
            self._field = name
        self._data.clear()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self.file += data[start:end]
        else:
            self._grow(self._data, data[start:end], _MAX_FIELD_BYTES)

    def _close(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._data.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


def _text(name: str, value: Any) -> str:
    """An option as a query would write it."""
    if name == "format" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise BadOption(f"{quoted(name)}: an option is a text or a number")
