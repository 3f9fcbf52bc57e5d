"""A lock that is fair: one network at a time on a device, in the order they came.

On a CPU each network uses every core by itself: two at once get in each other's way (about a tenth fewer images, and
the slowest takes three times as long). So each loaded network has a queue of its own, and all of them share a lock.

Knows nothing of networks, queues or devices.
"""

from collections import deque
from threading import Lock


class FairLock:
    """A context manager for threads, first come, first served: a busy one never overtakes one that waits."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._busy = False
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            mine = Lock() if self._busy else None
            if mine is not None:
                mine.acquire()
                self._waiting.append(mine)
            self._busy = True
        if mine is not None:
            mine.acquire()  # released by whoever held it before

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._busy = False
