"""What runs beside the requests: tasks and threads of which nobody may be waiting, and whose end is told all the same.

Knows nothing of what they do.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

log = logging.getLogger("tessera")

T = TypeVar("T")
_running: set[asyncio.Task[Any]] = set()  # the loop holds tasks weakly


class WorkLost(Exception):
    """What ended work that no exception of ours ended, such as a SystemExit inside a library."""


def as_exception(error: BaseException) -> Exception:
    """What a future can carry: SystemExit and its kin would end the event loop that waits, StopIteration none takes."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    said = str(error)[:200]
    lost = WorkLost(f"{type(error).__name__}: {said}" if said else type(error).__name__)
    lost.__cause__ = error
    return lost


def spawn(coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task that lives until it ends; where it fails, the log says so."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_told)
    return task


def in_thread(work: Callable[[], T], name: str, discard: Callable[[T], object] | None = None) -> asyncio.Future[T]:
    """What `work` returns or raises, from a thread of its own, which the end of the process does not wait for.

    discard  what is done with an answer for which nobody waits any more, in that thread
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(answer: T | None, error: Exception | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(answer)  # type: ignore[arg-type]
        elif error is not None:
            log.warning("%s failed after nobody waited for it any more: %s", name, error)
        elif discard is not None and answer is not None:
            given = answer
            threading.Thread(target=lambda: discard(given), name=f"{name}, put away", daemon=True).start()

    def run() -> None:
        answer, error = None, None
        try:
            answer = work()
        except BaseException as failed:
            error = as_exception(failed)
        try:
            loop.call_soon_threadsafe(settle, answer, error)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            log.debug("%s ended after the server did", name)

    began_by = copy_context()
    threading.Thread(target=lambda: began_by.run(run), name=name, daemon=True).start()
    return done


class Patience:
    """For how many seconds one and the same thing was seen to go on, by who looks now and then.

    Seconds in which nobody looked, as while the whole process stood still, are counted by what the looker says of
    them: a machine that slept has no hanging work.
    """

    __slots__ = ("_seen", "seconds")

    def __init__(self) -> None:
        self._seen: object | None = None
        self.seconds = 0.0

    def look(self, thing: object | None, elapsed_s: float) -> float:
        """How long it has gone on; 0 for None, and for what was not there at the last look."""
        if thing is None or thing is not self._seen:
            self._seen, self.seconds = thing, 0.0
        else:
            self.seconds += elapsed_s
        return self.seconds


def _told(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s ended: %s", task.get_name(), error, exc_info=error)
