"""A request's body: read within limits, then told apart by looking at it.

Knows nothing of images or models. Real clients send no Content-Type, or a wrong one; it is believed only
where the bytes agree.
"""

import asyncio
import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.api.dependencies import state_of
from service.errors import BadBody, BadOption, BodyTooLarge, BodyTooSlow, UnsupportedEncoding, quoted

CURL = "curl -F image=@photo.jpg"
_TURN_BYTES = 2**18  # joining more than this takes a turn of the loop
_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 8192
_BOUNDARY_LINE = re.compile(rb"--([^\r\n]{1,200})\r\ncontent-", re.IGNORECASE)


class ParsedBody(NamedTuple):
    """A request's body, parsed.

    images  the files' bytes, at least one;  fields  options given beside them
    many    whether the answer is a list
    path    of a file that is meant in place of images; None: there are images
    mask    the file that marks a place in the image, where one may be sent
    """

    images: tuple[bytes, ...]
    fields: Mapping[str, str] = MappingProxyType({})
    many: bool = False
    path: str | None = None
    mask: bytes | None = None


async def read(
    request: Request,
    hold: Callable[[int], None],
    *,
    max_bytes: int,
    timeout_s: float,
    too_large: Callable[[int], BodyTooLarge] | None = None,
    compressed: bool = False,
) -> bytes:
    """The whole body. Bytes are counted as they come; a Content-Length over the limit is refused unread.

    hold        is told of every byte kept, and may refuse
    too_large   what to say of more than `max_bytes`; None: what is right for images
    compressed  whether it may have a Content-Encoding: the bytes are then as they came (`content_encoding.py`)

    Raises BodyTooLarge, BodyTooSlow, UnsupportedEncoding, Busy; ClientDisconnect when the client leaves.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity") and not compressed:
        raise UnsupportedEncoding(f"Content-Encoding {quoted(encoding, 40)} is not opened; send the body as it is")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise (too_large or _too_large)(max_bytes)
    chunks: list[bytes] = []
    size, began = 0, time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise (too_large or _too_large)(max_bytes)
                hold(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise BodyTooSlow(f"the body had not arrived after {timeout_s:g} s; {size} bytes had") from None
    request.state.unread = False
    if (trace := request.state.trace) is not None:
        trace.note("receive", began, time.perf_counter())
    if len(chunks) == 1:
        return chunks[0]
    if size < _TURN_BYTES:
        return b"".join(chunks)
    async with state_of(request).runtime.joining:  # a hundred that end together would keep a probe waiting for seconds
        await asyncio.sleep(0)
        return b"".join(chunks)


def parse(data: bytes, content_type: str, *, max_images: int, mask: bool = False) -> ParsedBody:
    """What a body holds: a form, JSON, or the image file itself.

    mask  whether a form may have a second file, called `mask`

    Raises BadBody (damaged), BadOption (parts that have no meaning), BodyTooLarge (too many images).
    """
    if not data:
        raise BadBody(f"the body is empty; send an image: {CURL} …")
    kind, parameters = parse_options_header(content_type)
    head = data[:512].lstrip()
    if head.startswith(b"--"):
        if (boundary := parameters.get(b"boundary")) and head.startswith(b"--" + boundary):
            return _form(data, boundary, max_images, mask)
        if found := _BOUNDARY_LINE.match(head):
            return _form(data, found[1], max_images, mask)
    if head.startswith((b"{", b"\xef\xbb\xbf{")):
        return _json(data, max_images)
    if kind == b"multipart/form-data" and b"boundary" not in parameters and head.startswith(b"--"):
        raise BadBody(f"the multipart body is malformed: it names no boundary; let your client make it: {CURL} …")
    if kind == b"application/json" or head.startswith((b"[", b'"')):
        _refuse_other_json(data)
    if re.match(rb"[\w%]+=", head) and kind == b"application/x-www-form-urlencoded":
        raise BadBody(f"an image does not travel form-encoded; use -F in place of -d: {CURL} …")
    if kind == b"multipart/form-data" and parameters.get(b"boundary", b"\0") in data:
        raise BadBody("the multipart body is malformed: it does not begin with its boundary")
    return ParsedBody((data,))


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than the {max_bytes / 2**20:.0f} MiB allowed (TESSERA_MAX_BODY_BYTES); send fewer or"
        " smaller images"
    )


def check_count(count: int, max_images: int) -> None:
    """Raises BodyTooLarge for more images than one request may bring."""
    if count > max_images:
        raise BodyTooLarge(f"more than {max_images} images in one request (TESSERA_MAX_IMAGES); send them in several")


def _json(data: bytes, max_images: int) -> ParsedBody:
    try:
        document = from_json(data.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False)
    except ValueError as error:
        raise BadBody(f"the body begins as JSON but is not: {error}") from None
    unknown = sorted(set(document) - {"image", "images", "path"})
    if unknown:
        raise BadOption(
            f'JSON has the key "image", "images" or "path", not {quoted(unknown[0])}; options go into the query'
        )
    if len(document) != 1:
        raise BadBody('JSON has one key, "image": "<base64>", "images": ["<base64>", …] or "path": "<file>"')
    if "path" in document:
        if not isinstance(document["path"], str):
            raise BadBody('"path" is a text: a file below one of the server\'s TESSERA_ROOTS')
        return ParsedBody((), path=document["path"])
    many = "images" in document
    texts = document["images"] if many else [document["image"]]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadBody('"image" is a base64 text, "images" a list of at least one')
    check_count(len(texts), max_images)
    return ParsedBody(tuple(base64_file(text, i) for i, text in enumerate(texts)), many=many)


def _refuse_other_json(data: bytes) -> None:
    """Raises BadBody for a body that is JSON, and no object."""
    try:
        document = from_json(data)
    except ValueError:
        return
    kind = "a list" if isinstance(document, list) else "a text" if isinstance(document, str) else "a lone value"
    raise BadBody(f'the body is JSON, but {kind}; send an object: {{"image": "<base64>"}} or {{"images": […]}}')


def base64_file(text: str, index: int) -> bytes:
    """The file in a base64 text, or in a data: URL. Raises BadBody, naming the image by its index."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):  # ValueError: letters beyond ASCII
        raise BadBody(f"image {index}: its base64 is damaged; encode the file's bytes, standard alphabet") from None


class _Part:
    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.data: list[bytes] = []


def _form(data: bytes, boundary: bytes, max_images: int, with_mask: bool) -> ParsedBody:
    try:
        parts = _parts(data.lstrip(b"\r\n"), boundary, max_images + _MAX_FIELDS)
    except FormParserError:
        raise BadBody(f"the multipart body is malformed or cut off; let your client make it: {CURL} …") from None
    images: list[bytes] = []
    fields: dict[str, str] = {}
    mask: bytes | None = None
    for part in parts:
        _, disposition = parse_options_header(part.headers.get(b"content-disposition", b""))
        name = disposition.get(b"name", b"").decode("utf-8", "replace")
        value = b"".join(part.data)
        if name == "image":
            check_count(len(images) + 1, max_images)
            images.append(_file(value, named=b"filename" in disposition))
        elif with_mask and name == "mask":
            if mask is not None:
                raise BadOption("'mask': given twice")
            mask = value
        elif b"filename" in disposition:
            raise BadOption(f"the file's part is called {quoted(name)}; call it 'image': {CURL} …")
        elif name in fields:
            raise BadOption(f"{quoted(name)}: given twice")
        elif len(value) > _MAX_FIELD_BYTES:
            raise BadOption(f"{quoted(name)}: an option of {len(value)} bytes; {_MAX_FIELD_BYTES} are the most")
        else:
            fields[name] = value.decode("utf-8", "replace")
    if not images:
        raise BadBody(f"the form has no part called 'image': {CURL} …")
    return ParsedBody(tuple(images), fields, many=len(images) > 1, mask=mask)


def _file(value: bytes, *, named: bool) -> bytes:
    if not named and len(value) < 1024 and value.isascii() and value.strip():
        path = value.decode("ascii", "replace").strip()
        raise BadBody(
            f"the part 'image' is the text {quoted(path)}, not a file; curl wants an @ before the name: {CURL} …"
        )
    return value


def _parts(data: bytes, boundary: bytes, max_parts: int) -> list[_Part]:
    parts: list[_Part] = []
    header, value = bytearray(), bytearray()
    ended = False

    def begin() -> None:
        if len(parts) == max_parts:
            raise BodyTooLarge(f"more than {max_parts} parts in one form")
        parts.append(_Part())

    def header_end() -> None:
        parts[-1].headers[bytes(header).lower()] = bytes(value)
        header.clear()
        value.clear()

    def end() -> None:
        nonlocal ended
        ended = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": lambda d, a, b: header.extend(d[a:b]),
            "on_header_value": lambda d, a, b: value.extend(d[a:b]),
            "on_header_end": header_end,
            "on_part_data": lambda d, a, b: parts[-1].data.append(d[a:b]),
            "on_end": end,
        },
    )
    parser.write(data)
    parser.finalize()
    if not ended:
        raise FormParserError("cut off")
    return parts
