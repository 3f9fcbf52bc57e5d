"""Work that looks at the clock and stops when its time is up.

Knows nothing of what the work is.
"""

import time

from models.errors import TesseraError


class DeadlineExceeded(TesseraError):
    """The deadline passed before the answer was there."""


def check_time(deadline: float | None, ahead_s: float = 0.0) -> None:
    """Raises DeadlineExceeded once time.monotonic() will be at the deadline in so many seconds; None never passes."""
    if deadline is not None and time.monotonic() + ahead_s >= deadline:
        raise DeadlineExceeded("the CRF ran out of time; allow it more, or fewer iterations or a smaller image")
