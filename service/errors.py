"""Refusals as HTTP: one table from exception to status, one document for all of them.

Knows nothing of routes, of images, of models.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from models.errors import TesseraError
from models.image import ImageError, ImageTooLarge, UnsupportedImage

PROBLEM = "application/problem+json"


class BadBody(TesseraError):
    """A body that is none of the kinds `POST /segment` reads, or is damaged."""


class NotFound(TesseraError):
    """A model, cluster or exemplar that is not there."""


class BodyTooSlow(TesseraError):
    """The body had not arrived by the deadline."""


class BodyTooLarge(TesseraError):
    """More bytes, or more images, than one request may bring."""


class UnsupportedEncoding(TesseraError):
    """A Content-Encoding that is not opened."""


class BadOption(TesseraError):
    """An option that is unknown or out of range; the message names it and its range."""


class Busy(TesseraError):
    """Nothing is wrong with the request; it comes at a bad time.

    retry_after_s  when to come back
    reason         one word, for the metrics
    """

    def __init__(self, message: str, *, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class TooMany(Busy):
    """This caller's share of the house is taken; others are served."""


class KeyMissing(TesseraError):
    """Keys are configured and none, or an unknown one, came with the request."""


class NotAllowed(TesseraError):
    """A known caller asks for what its key does not open."""


class BadModel(TesseraError):
    """A bundle that cannot be served: unsound, or its network does not compute here what training computed."""


class Conflict(TesseraError):
    """Asked for at the wrong moment: what the server holds has to change first."""


class DeadlinePassed(TesseraError):
    """The answer was not ready in time; the work was dropped."""


STATUS: dict[type[TesseraError], int] = {
    ImageTooLarge: 413,
    UnsupportedImage: 415,
    ImageError: 400,
    BadBody: 400,
    NotFound: 404,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    UnsupportedEncoding: 415,
    BadOption: 422,
    TooMany: 429,
    KeyMissing: 401,
    NotAllowed: 403,
    Conflict: 409,
    BadModel: 422,
    Busy: 503,
    DeadlinePassed: 504,
}


def status_of(error: TesseraError) -> int:
    """The status of an error: its own row in STATUS or its nearest ancestor's; 500 without one."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem_of(error: TesseraError, request_id: str) -> dict[str, Any]:
    """An error as an RFC 9457 document; what no client can cause is not described to clients."""
    status = status_of(error)
    if status == 500:
        return internal(request_id)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return {
        "type": f"urn:tessera:{words.replace(' ', '-')}",
        "title": words.capitalize(),
        "status": status,
        "detail": str(error),
        "request_id": request_id,
    }


def plain(status: int, detail: str, request_id: str) -> dict[str, Any]:
    """A problem that HTTP itself names: 404 for a route, 405, 500."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }


def internal(request_id: str) -> dict[str, Any]:
    """Our own fault: the log has the details, under the same id."""
    return plain(500, "the server failed; its log tells why, under this request_id", request_id)


def nearest(wanted: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` when one of `known` is close, else nothing."""
    close = difflib.get_close_matches(wanted, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def explain(errors: Sequence[Any], descriptions: dict[str, str]) -> str:
    """pydantic's errors as one sentence each, with the option's own description (it names the range).

    descriptions  option name → what it takes
    """
    sentences = []
    for error in errors[:3]:
        name = next((str(part) for part in reversed(error["loc"]) if isinstance(part, str)), "body")
        if error["type"] == "extra_forbidden":
            hint = nearest(name, descriptions) or f"; there are {', '.join(descriptions)}"
            sentences.append(f"{name[:60]!r} is not an option here{hint}")
            continue
        given = str(error.get("input"))
        shown = f" (got {given[:40]!r})" if isinstance(error.get("input"), str | int | float) else ""
        message = error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
        if error["type"] == "string_pattern_mismatch" and name in descriptions:
            message = "cannot be read"  # the description says in words what the pattern says
        meaning = f"; {descriptions[name]}" if name in descriptions else ""
        sentences.append(f"{name[:60]}: {message}{shown}{meaning}")
    return ". ".join(sentences)
