"""Completions: answers from working threads to who waits on the event loop, one wake-up for all that are ready.

Knows nothing of what the work is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from service.scheduling.background import as_exception

log = logging.getLogger("tessera")

A = TypeVar("A")
Answers = Iterable[tuple[asyncio.Future[A], A | Exception]]


class CompletionQueue(Generic[A]):
    """For threads that work and one loop that waits."""

    def __init__(self) -> None:
        self._left: deque[tuple[Answers[A], Callable[[], object] | None]] = deque()
        self._announced = False  # the loop knows that answers are there

    def put(
        self, loop: asyncio.AbstractEventLoop, answers: Answers[A], then: Callable[[], object] | None = None
    ) -> None:
        """Leave answers for the loop, which calls `then` after them; wake it if it does not know of any yet."""
        self._left.append((answers, then))
        if not self._announced:
            self._announced = True
            try:
                loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody is left to hear it
                self._announced = False
                self._left.clear()

    def _deliver(self) -> None:
        self._announced = False
        while self._left:
            answers, then = self._left.popleft()
            for done, answer in answers:
                if done.done():  # who asked has left meanwhile
                    continue
                if isinstance(answer, Exception):
                    done.set_exception(as_exception(answer))
                else:
                    done.set_result(answer)
            if then is not None:
                try:
                    then()
                except Exception:  # the answers that follow are others'
                    log.exception("what is told of finished work failed")
