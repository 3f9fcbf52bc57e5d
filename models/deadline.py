"""Work that looks whether its answer is still wanted, and stops when it is not.

Knows nothing of what the work is.
"""

import math
import time

from models.errors import TesseraError


class DeadlineExceeded(TesseraError):
    """The deadline passed before the answer was there, or nobody waits for it any more."""


class Deadline:
    """Until when an answer is wanted: a time.monotonic(), or earlier, once `cancel` is called, by any thread."""

    __slots__ = ("at",)

    def __init__(self, at: float = math.inf) -> None:
        self.at = at

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self.at = -math.inf

    def check(self, ahead_s: float = 0.0) -> None:
        """Raises DeadlineExceeded where the answer will not be wanted in so many seconds."""
        if time.monotonic() + ahead_s >= self.at:
            raise DeadlineExceeded(
                "the time ran out; allow more, or ask for less: a smaller image, or fewer iterations"
            )


Until = float | Deadline | None  # None: the answer is always wanted


def check_time(until: Until, ahead_s: float = 0.0) -> None:
    """Raises DeadlineExceeded once time.monotonic() will be at the deadline in so many seconds; None never passes."""
    if until is not None:
        (until if isinstance(until, Deadline) else Deadline(until)).check(ahead_s)
