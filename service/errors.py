"""Every refusal of the service, as an exception; `api/problems.py` gives each its HTTP status.

Knows nothing of routes, of images, of models.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from models.errors import TesseraError


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


class NotAcceptable(TesseraError):
    """An Accept header that names only media types that no answer has."""


class BadHost(TesseraError):
    """A request without a Host header, or with several."""


class Misdirected(TesseraError):
    """A request for a host that this server is not."""


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
    """This caller's share of the server is taken; others are served."""


class TooManyWrongKeys(TooMany):
    """An address that has sent wrong keys sends another that it never came in with."""


class KeyMissing(TesseraError):
    """Keys are configured and none, or an unknown one, came with the request."""


class NotAllowed(TesseraError):
    """A known caller asks for what its key does not open."""


class BadModel(TesseraError):
    """A bundle that cannot be served: unsound, or its network does not compute here what training computed."""


class Conflict(TesseraError):
    """Not possible now: what the server holds has to change first."""


class PreconditionFailed(TesseraError):
    """What the request says it has seen (If-Match, If-None-Match) is not what is there."""


class NotKept(TesseraError):
    """A change that could not be written to the disk; nothing has changed then."""


class NetworkFailed(TesseraError):
    """A model's network hung or died while it ran; the message names the model."""


class NetworkNotFinite(NetworkFailed):
    """A model's network answered NaN or infinity: of that no label can be made."""


class DeadlinePassed(TesseraError):
    """The answer was not ready in time; the work was dropped."""


def printable(text: str) -> str:
    """`text` on one line and as it reads: control, bidirectional and invisible characters are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quoted(text: str, most: int = 60) -> str:
    """What somebody wrote, for a message or a log line: in quotes, `printable`, its first `most` characters."""
    return repr(text if len(text) <= most else text[:most] + "…")


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
            sentences.append(f"{quoted(name)} is not an option here{hint}")
            continue
        given = error.get("input")
        shown = f" (got {quoted(str(given), 40)})" if isinstance(given, str | int | float) else ""
        message = error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
        if error["type"] == "string_pattern_mismatch" and name in descriptions:
            message = "cannot be read"  # the description says in words what the pattern says
        meaning = f"; {descriptions[name]}" if name in descriptions else ""
        sentences.append(f"{printable(name[:60])}: {message}{shown}{meaning}")
    return ". ".join(sentences)
