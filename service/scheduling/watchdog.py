"""The watchdog: looks every second or so whether what works for requests still does, and how late the loop itself is.

Knows nothing of engines, batchers or HTTP: it calls what it is given.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

log = logging.getLogger("tessera")

_PERIOD_S = 1.0


class Watchdog:
    """Of one server, as a task on its loop.

    tend     called each time with the seconds that have passed since the last; those in which the process stood still
             count as two periods at most
    late     told how many seconds later than planned the loop came to it
    shortest_s  of the times that `tend` measures: it is called ten times in them
    """

    def __init__(
        self, tend: Sequence[Callable[[float], object]], late: Callable[[float], object], shortest_s: float
    ) -> None:
        self._tend, self._late = tend, late
        self.period_s = min(_PERIOD_S, shortest_s / 10)

    async def run(self) -> None:
        """Until it is cancelled; what fails is logged, and looked at again the next time."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(self.period_s)
            now = time.monotonic()
            passed, before = now - before, now
            self._late(max(0.0, passed - self.period_s))
            for tend in self._tend:
                try:
                    tend(min(passed, 2 * self.period_s))
                except Exception:
                    log.exception("the watchdog could not look after everything")
