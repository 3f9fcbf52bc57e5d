"""Work that looks at the clock and stops when its time is up.

Knows nothing of what the work is.
"""

import time
from typing import TYPE_CHECKING

from models.crf.params import CRFError

if TYPE_CHECKING:
    pass


class CRFTimeout(CRFError):
    """The deadline passed before the answer was there."""


def check_time(deadline: float | None, ahead_s: float = 0.0) -> None:
    """Raises CRFTimeout once time.monotonic() will have reached the deadline in so many seconds; None never passes."""
    if deadline is not None and time.monotonic() + ahead_s >= deadline:
        raise CRFTimeout("the CRF ran out of time; allow it more, or fewer iterations or a smaller image")
