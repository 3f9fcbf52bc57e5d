"""A lock that is fair: one network at a time on a device, in the order they came.

On a CPU each network uses every core by itself: two at once get in each other's way (about a tenth fewer images, and
the slowest takes three times as long). So each loaded network has a queue of its own, and all of them share a lock.
Whoever holds it and does not come back can be expelled: the next in line goes on.

Knows nothing of networks, queues or devices.
"""

from collections import deque
from threading import Lock, get_ident


class FairLock:
    """A context manager for threads, first come, first served: a busy one never overtakes one that waits."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._holder: int | None = None  # the thread that is inside
        self._waiting: deque[tuple[int, Lock]] = deque()

    def __enter__(self) -> None:
        me = get_ident()
        with self._guard:
            turn = None
            if self._holder is None:
                self._holder = me
            else:
                turn = Lock()
                turn.acquire()
                self._waiting.append((me, turn))
        if turn is not None:
            turn.acquire()  # released by whoever held it before

    def __exit__(self, *_: object) -> None:
        self._hand_on(get_ident())

    def expel(self, thread: int) -> bool:
        """Take the lock from a thread that hangs in it, by its ident; False where it is not inside."""
        return self._hand_on(thread)

    def _hand_on(self, thread: int) -> bool:
        with self._guard:
            if self._holder != thread:  # it was expelled, and comes back late
                return False
            self._holder = None
            if self._waiting:
                self._holder, turn = self._waiting.popleft()
                turn.release()
            return True
