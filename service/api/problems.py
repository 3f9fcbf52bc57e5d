"""Refusals as HTTP: one table from exception to status, one RFC 9457 document for all of them.

Knows nothing of routes, of images, of models.
"""

import re
from http import HTTPStatus
from typing import Any

from models.errors import TesseraError
from models.io.samples import ImageError, ImageTooLarge, NoSuchPart, UnsupportedImage
from service.errors import (
    BadBody,
    BadHost,
    BadModel,
    BadOption,
    BodyTooLarge,
    BodyTooSlow,
    Busy,
    Conflict,
    DeadlinePassed,
    KeyMissing,
    Misdirected,
    NetworkFailed,
    NotAcceptable,
    NotAllowed,
    NotFound,
    NotKept,
    PreconditionFailed,
    TooMany,
    UnsupportedEncoding,
    printable,
)

PROBLEM = "application/problem+json"

STATUS: dict[type[TesseraError], int] = {
    ImageTooLarge: 413,
    UnsupportedImage: 415,
    NoSuchPart: 422,
    ImageError: 400,
    BadBody: 400,
    BadHost: 400,
    NotFound: 404,
    NotAcceptable: 406,
    Misdirected: 421,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    UnsupportedEncoding: 415,
    BadOption: 422,
    TooMany: 429,
    KeyMissing: 401,
    NotAllowed: 403,
    Conflict: 409,
    PreconditionFailed: 412,
    BadModel: 422,
    Busy: 503,
    DeadlinePassed: 504,
    NotKept: 507,
    NetworkFailed: 500,
}


def status_of(error: TesseraError) -> int:
    """The status of an error: its own row in STATUS or its nearest ancestor's; 500 without one."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem_of(error: TesseraError, request_id: str) -> dict[str, Any]:
    """An error as an RFC 9457 document; what has no row in STATUS is not described to clients."""
    if not any(kind in STATUS for kind in type(error).__mro__):
        return internal(request_id)
    status = status_of(error)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return {
        "type": f"urn:tessera:{words.replace(' ', '-')}",
        "title": words.capitalize(),
        "status": status,
        "detail": printable(str(error)),
        "request_id": request_id,
    }


def plain(status: int, detail: str, request_id: str) -> dict[str, Any]:
    """A problem that HTTP itself names: 404 for a route, 405, 500."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": printable(detail),
        "request_id": request_id,
    }


def internal(request_id: str) -> dict[str, Any]:
    """Our own fault: the log has the details, under the same id."""
    return plain(500, "the server failed; its log tells why, under this request_id", request_id)
