"""When a request is sent again, and how long that waits: RFC 9110's Retry-After, else longer each time, never in step.

Knows nothing of what is asked.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from tessera.client.errors import NoAnswer, TimedOut

_REFUSED_UNDONE = (429, 503)  # the server did nothing: any request may come again
_GATEWAYS = (502, 504)  # a proxy's, which knows of nothing done
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_SPREAD = 0.25  # of a Retry-After: who were refused together do not come back together


@dataclass(frozen=True)
class Retries:
    """How often, and how long between: `first_s`, doubled each time up to `longest_s`, less up to a half at random.

    most  times that a request is sent again; 0: never
    """

    most: int = 6
    first_s: float = 0.25
    longest_s: float = 8.0

    def wait_s(self, tried: int, retry_after_s: float | None) -> float:
        """Seconds before the next try, after `tried` that failed; never less than what the server named."""
        if retry_after_s is not None:
            return retry_after_s * (1 + _SPREAD * random.random())
        return min(self.longest_s, self.first_s * 2.0 ** (tried - 1)) * (1 - random.random() / 2)


class Attempts:
    """The tries of one call, until they or its time are used up."""

    def __init__(
        self, retries: Retries, timeout_s: float, *, repeatable: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retries, self._timeout_s, self._repeatable, self._clock = retries, timeout_s, repeatable, clock
        self._end = clock() + timeout_s
        self._tried = 0

    def left_s(self) -> float:
        """Until the deadline. Raises TimedOut where it has passed."""
        if (left := self._end - self._clock()) <= 0:
            raise TimedOut(self._late())
        return left

    def after_answer(self, status: int, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait before the next try; None: this answer is the one."""
        self._tried += 1
        again = status in _REFUSED_UNDONE or (status in _GATEWAYS and self._repeatable and not ours(headers))
        return self._wait_s(retry_after_s(headers)) if again else None

    def after_failure(self, error: httpx.TransportError) -> float:
        """Seconds to wait before the next try. Raises NoAnswer, TimedOut."""
        self._tried += 1
        if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            raise TimedOut(self._late()) from error
        may_come_again = isinstance(error, _NOT_SENT) or (
            self._repeatable and not isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError)
        )
        if may_come_again and (wait_s := self._wait_s(None)) is not None:
            return wait_s
        words = str(error) or type(error).__name__
        times = "once" if self._tried == 1 else f"{self._tried} times"
        raise NoAnswer(f"no answer from the server, tried {times}: {words}") from error

    def _late(self) -> str:
        return (
            "no answer in time (timeout=)"
            if self._end == math.inf
            else f"no answer within {self._timeout_s:g} s (timeout=)"
        )

    def _wait_s(self, retry_after_s: float | None) -> float | None:
        if self._tried > self._retries.most:
            return None
        wait_s = self._retries.wait_s(self._tried, retry_after_s)
        return wait_s if self._clock() + wait_s < self._end else None


def ours(headers: Mapping[str, str]) -> bool:
    """Whether the server itself answered, and no proxy before it."""
    return "x-request-id" in headers and headers.get("content-type", "").startswith("application/problem+json")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After, which may be a date as well; None without one that can be read."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
