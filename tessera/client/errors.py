"""What a call may end with: one class for each thing that a caller does about it.

Knows nothing of how requests are sent.
"""

from typing import NamedTuple

from models.errors import TesseraError, UsageError


class Problem(NamedTuple):
    """What a server says of a refusal (RFC 9457); of one that says nothing, what its status means."""

    status: int
    title: str
    detail: str
    type: str = "about:blank"
    request_id: str | None = None


class ClientError(TesseraError):
    """The base of all below."""


class NoAddress(UsageError, ValueError):
    """What was given as a server's address is none."""


class BadImage(ClientError):
    """What was given is no image that could be sent: a file that is not there, an array of another shape."""


class NoAnswer(ClientError):
    """No server was reached, or its connection broke, as often as was tried."""


class TimedOut(ClientError):
    """The call's time was up before an answer was there."""


class Refused(ClientError):
    """The server answered, and not with what was asked for. Its request id finds the line in the server's log."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(problem, retry_after_s)
        self.problem = problem
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        where = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.title}: {self.detail}{where}"

    @property
    def status(self) -> int:
        """HTTP's number."""
        return self.problem.status

    @property
    def title(self) -> str:
        """What kind of refusal it is."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """What to change."""
        return self.problem.detail

    @property
    def request_id(self) -> str | None:
        """Under which the server's log has it."""
        return self.problem.request_id


class ImageRefused(Refused):
    """400, 408, 413, 415: the image, or the body it came in."""


class KeyRefused(Refused):
    """401, 403: the key is missing, wrong, or not for this."""


class NotFound(Refused):
    """404: no such model, cluster, exemplar or job."""


class Conflict(Refused):
    """409, 412: what is there is not what was thought."""


class OptionRefused(Refused):
    """406, 422: an option out of its range, or one that this server does not have."""


class Busy(Refused):
    """429, 503: too much at once, as often as was tried."""


class ServerFailed(Refused):
    """500 and above: the fault is not the caller's."""


_KINDS: dict[int, type[Refused]] = {
    400: ImageRefused, 401: KeyRefused, 403: KeyRefused, 404: NotFound, 406: OptionRefused, 408: ImageRefused,
    409: Conflict, 412: Conflict, 413: ImageRefused, 415: ImageRefused, 422: OptionRefused, 429: Busy, 503: Busy,
}  # fmt: skip


def refusal(problem: Problem, retry_after_s: float | None = None) -> Refused:
    """The error of a problem, of the class that its status has."""
    kind = _KINDS.get(problem.status, ServerFailed if problem.status >= 500 else Refused)
    return kind(problem, retry_after_s)


def of_all(error: ClientError) -> bool:
    """Whether it would be the same for every image: a key, an option, a model."""
    return isinstance(error, KeyRefused | NotFound) or (
        isinstance(error, OptionRefused) and error.problem.type != "urn:tessera:no-such-part"
    )
