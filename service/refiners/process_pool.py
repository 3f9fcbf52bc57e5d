"""The dense CRF by pydensecrf, in processes of its own: it holds Python's lock, so that threads would stop the server.

A process refines one image at a time. Whoever asks does so from a thread and waits there; as many threads ask as there
are processes. One that died, or does not come back, is replaced, and its image is tried once more.

They end with the server. One that is killed closes its ends of the pipes, and who reads or writes the other finds out:
an idle process at once, a busy one with its image.

Knows nothing of HTTP, of networks, of image files.
"""

import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from models.crf import reference
from models.deadline import check_time
from models.errors import TesseraError
from models.preprocess import Fit
from models.refine import refine
from models.types import Array
from service.settings import Settings, SettingsError

log = logging.getLogger("tessera")

START_S = 60.0  # for a process to say that it is ready
GRACE_S = 10.0  # after the deadline, which it looks at between two steps


class ProcessLost(TesseraError):
    """No process could refine this image; nothing is wrong with it."""


def by_pydensecrf(*given: Any, **options: Any) -> Array:
    """What a process does with an image."""
    return refine(*given, method="pydensecrf", **options)


class ProcessPoolRefiner:
    """A pool of processes that refine by pydensecrf, ready once made.

    count  processes
    work   what each does with what `refined` is given; a module's own function, which is how a process finds it

    Raises ProcessLost where one does not start.
    """

    def __init__(self, count: int, work: Callable[..., Array] = by_pydensecrf) -> None:
        self._work = work
        self._lock = threading.Lock()  # of the next two
        self._closed = False
        self._all: set[_Process] = set()
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        try:
            for process in [self._start() for _ in range(count)]:  # they start side by side
                process.wait_ready()
                self._idle.put(process)
        except ProcessLost:
            self.close()
            raise

    @classmethod
    def open(cls, settings: Settings, count: int) -> "ProcessPoolRefiner | None":
        """Those that the settings ask for. Raises SettingsError where pydensecrf does not work here."""
        if settings.crf != "pydensecrf":
            return None
        if reason := reference.missing():
            raise SettingsError(f"TESSERA_CRF=pydensecrf: {reason}")
        processes = cls(count)
        log.info("pydensecrf is the CRF, in processes: %d", count)
        return processes

    def refine(self, scores: Array, code: Array | None, fitted: Fit, *, deadline: float, **options: Any) -> Array:
        """models.refine.refine by pydensecrf, and what it raises; blocks. Raises ProcessLost when two have died."""
        process = self._idle.get()
        try:
            for _ in range(2):
                check_time(deadline)
                try:
                    return process.ask((scores, code, fitted), options, deadline)
                except ProcessLost as error:
                    lost = error
                    log.warning("%s; another one takes its place", error)
                    process = self._instead_of(process)
            raise lost
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """Ends all processes, and what they are doing."""
        with self._lock:
            self._closed = True
            for process in self._all:
                process.end()

    def _start(self) -> "_Process":
        with self._lock:
            if self._closed:
                raise ProcessLost("the server is ending")
            try:
                process = _Process(self._work)
            except OSError as error:
                raise ProcessLost(f"no process for the CRF can be started ({error})") from None
            self._all.add(process)
        return process

    def _instead_of(self, process: "_Process") -> "_Process":
        process.end()
        with self._lock:
            self._all.discard(process)
        return self._start()


class _Process:
    """One, starting."""

    def __init__(self, work: Callable[..., Array]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the server's locks, and its pipes to others
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_answer, args=(other_end, work), name="crf", daemon=True)
        self._process.start()
        other_end.close()
        self._ready = False

    def wait_ready(self) -> None:
        """Raises ProcessLost where it never is."""
        if not self._ready:
            self._receive(START_S)
            self._ready = True

    def ask(self, given: tuple[Any, ...], options: dict[str, Any], deadline: float) -> Array:
        """What its work makes of an image, or raises. Raises ProcessLost where it does not come back."""
        self.wait_ready()
        left_s = deadline - time.monotonic()  # its clock need not be ours
        watch = threading.Timer(left_s + GRACE_S, self._process.kill)  # a pipe that nobody reads or fills has no limit
        watch.daemon = True
        watch.start()
        try:
            self._pipe.send((given, options, left_s))
            answer = self._receive(None)
        except ProcessLost:
            raise
        except Exception as error:  # also what cannot be sent or read: an answer left behind would be the next image's
            raise ProcessLost(f"a process of the CRF is gone ({error})") from None
        finally:
            watch.cancel()
        if isinstance(answer, Exception):
            raise answer
        labels: Array = answer
        return labels

    def end(self) -> None:
        """At once. Waits until it is gone, and closes nothing that a thread may be waiting at."""
        self._process.kill()
        self._process.join()

    def _receive(self, patience_s: float | None) -> Any:
        try:
            if self._pipe.poll(patience_s):
                return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(1)
            raise ProcessLost(f"a process of the CRF has died (exit code {self._process.exitcode})") from None
        raise ProcessLost("a process of the CRF does not answer")


def _answer(pipe: Connection, work: Callable[..., Array]) -> None:
    """What a process does: one image after the other, until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group, and the server finishes its work
    try:
        pipe.send("ready")
        while True:
            given, options, left_s = pipe.recv()
            pipe.send(_tried(work, given, options, time.monotonic() + left_s))
    except (EOFError, OSError):
        pass


def _tried(work: Callable[..., Array], given: tuple[Any, ...], options: dict[str, Any], deadline: float) -> Any:
    try:
        return work(*given, deadline=deadline, **options)
    except Exception as error:
        return error
