"""One network at a time on a device, in the order they came.

On a CPU each network uses every core by itself: two at once get in each other's way (about a tenth fewer images, and
the slowest takes three times as long). So each loaded network has a queue of its own, and all of them share a lane.

Knows nothing of networks, queues or devices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Lane:
    """Threads take turns, first come, first served: a busy one never overtakes one that waits."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._busy = False
        self._waiting: deque[Lock] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until the lane is free, and holds it."""
        with self._guard:
            mine = Lock() if self._busy else None
            if mine is not None:
                mine.acquire()
                self._waiting.append(mine)
            self._busy = True
        if mine is not None:
            mine.acquire()  # released by whoever held the lane before
        try:
            yield
        finally:
            with self._guard:
                if self._waiting:
                    self._waiting.popleft().release()
                else:
                    self._busy = False
