"""Starts a server again when it ends by a failure: python supervisor.py [--crew N FOLDER] COMMAND …

A script of the standard library alone, in which `tessera serve --supervise` goes on, so that the parent stays small.
A server that ends with 0, or with 2 (a setting or an option is wrong, and would be again), is not started again.
Signals are handed on; the server ends with its supervisor, also where that is killed (on Linux).

A crew is N such servers, the workers of `tessera serve --workers`, with a FOLDER in which they meet. The first is
started alone: what is wrong with settings, port or bundle is said once, and what it finds out of the machine the others
need not. Once it was ready the others follow, and from then on each is started again by itself. One whose loop stands
still, which its page shows, is killed, and so started again too.

Knows nothing of what the command does.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

RESTARTS = 5
WITHIN_S = 600.0
LONGEST_PAUSE_S = 30.0
STILL_S = 30.0
USAGE = 2
_LOOK_S = 0.05
_LOOKS_AT_BEATS = 30
_BEATS_BYTES = 8  # at the head of a page
_HANDED_ON = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl


class Supervisor:
    """Of one command.

    restarts, within_s  more restarts than this within so many seconds, and it gives up
    pause_s             before the first of them; doubled for each that follows
    """

    def __init__(
        self, command: Sequence[str], *, restarts: int = RESTARTS, within_s: float = WITHIN_S, pause_s: float = 1.0
    ) -> None:
        self._command = list(command)
        self._restarts, self._within_s, self._pause_s = restarts, within_s, pause_s
        self._child: subprocess.Popen[bytes] | None = None
        self._ending: int | None = None  # the signal that ends all

    def run(self) -> int:
        """Until the command ends for good; the exit status."""
        for number in _HANDED_ON:
            signal.signal(number, self._hand_on)
        latest: deque[float] = deque()
        while True:
            status = self._once()
            if self._ending is not None or status in (0, USAGE):
                return status if status >= 0 else 128 - status
            now = time.monotonic()
            while latest and now - latest[0] > self._within_s:
                latest.popleft()
            how = _how(status)
            if len(latest) == self._restarts:
                said = f"{self._restarts} restarts within {self._within_s / 60:g} minutes are enough"
                _say(f"the server {how}; {said}: see its log above")
                return 1
            pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2 ** len(latest))
            latest.append(now)
            _say(f"the server {how}; it is started again in {pause_s:g} s ({len(latest)} of {self._restarts})")
            if (number := self._pause(pause_s)) is not None:
                return 128 + number

    def _once(self) -> int:
        # A session of its own: Ctrl-C reaches the whole group, and the server would get it twice.
        child = subprocess.Popen(self._command, start_new_session=True, preexec_fn=_end_with_parent())
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDED_ON)
        self._child = child
        if self._ending is not None:  # it came while the child was started
            child.send_signal(self._ending)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDED_ON)
        status = child.wait()
        self._child = None
        return status

    def _pause(self, seconds: float) -> int | None:
        """The signal that ended it, if one did. No lock waits here: a signal's handler could want it."""
        until = time.monotonic() + seconds
        while self._ending is None and time.monotonic() < until:
            time.sleep(0.05)
        return self._ending

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if number != getattr(signal, "SIGHUP", None):
            self._ending = number
        if self._child is not None:
            self._child.send_signal(number)


class Pulse:
    """Whether a worker's loop goes on: what it counts in its page changes.

    still_s  it stands still when so many seconds apart, in many looks in a row, the count was the same. Looks count,
             not the clock alone: one long pause of the machine, or of this process, is one look.
    """

    def __init__(self, still_s: float) -> None:
        self._apart_s = still_s / _LOOKS_AT_BEATS
        self._next, self._beats, self._same = 0.0, bytes(_BEATS_BYTES), 0

    def stopped(self, now: float, beats: bytes) -> bool:
        """Whether it stands still, told once. All zeros or nothing: it does not serve yet, or not any more."""
        if now < self._next:
            return False
        self._next = now + self._apart_s
        self._same = self._same + 1 if any(beats) and beats == self._beats else 0
        self._beats = beats
        return self._same == _LOOKS_AT_BEATS


class _Worker:
    """One of a crew: its process, while there is one, and when the next is started."""

    def __init__(self, number: int, still_s: float) -> None:
        self.number = number
        self.pulse = Pulse(still_s)
        self.process: subprocess.Popen[bytes] | None = None
        self.starts_at: float | None = None
        self.latest: deque[float] = deque()


class Crew:
    """Several workers of one address.

    command  of a worker, which is told which it is by `--worker NUMBER/OF:FOLDER` at its end
    folder   where they meet, deleted at the end: `ready.json` is there once one of them was ready, and what `N.page`
             holds ends with worker N; what it begins with grows while N goes on
    still_s  a worker that does not for so long is killed
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: str,
        count: int,
        *,
        restarts: int = RESTARTS,
        within_s: float = WITHIN_S,
        pause_s: float = 1.0,
        still_s: float = STILL_S,
    ) -> None:
        self._command, self._folder = list(command), folder
        self._restarts, self._within_s, self._pause_s = restarts, within_s, pause_s
        self._still_s = still_s
        self._workers = [_Worker(number + 1, still_s) for number in range(count)]
        self._ending = False
        self._told: list[int] = []  # signals that came, to be handed on

    def run(self) -> int:
        """Until all have ended; the exit status."""
        for number in _HANDED_ON:
            signal.signal(number, lambda number, frame: self._told.append(number))
        status = 0
        self._workers[0].starts_at = time.monotonic()
        try:
            while True:
                self._hand_on()
                for worker in self._workers:
                    if (ended := self._look(worker)) is not None:
                        status = max(status, ended)
                if self._ending and not any(worker.process for worker in self._workers):
                    return status
                time.sleep(_LOOK_S)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _look(self, worker: _Worker) -> int | None:
        """Starts a worker whose time has come; the exit status that counts of one that has ended."""
        now = time.monotonic()
        if worker.process is None:
            if self._ending:
                return None
            if worker.starts_at is None and os.path.exists(os.path.join(self._folder, "ready.json")):
                worker.starts_at = now  # the first has shown that it can be done
            if worker.starts_at is not None and now >= worker.starts_at:
                self._start(worker)
            return None
        status = worker.process.poll()
        if status is None:
            if not self._ending and worker.pulse.stopped(now, self._beats(worker)):
                _say(f"worker {worker.number} stood still for {self._still_s:g} s and is killed")
                worker.process.kill()
            return None
        worker.process = None
        self._forget(worker)
        if self._ending:  # told before it could listen to it, or after
            return 0 if status == -signal.SIGTERM else status if status >= 0 else 128 - status
        return self._ended(worker, status, now)

    def _ended(self, worker: _Worker, status: int, now: float) -> int | None:
        """It ended by itself, or somebody ended it: it is started again, or this is the end of all."""
        ready = os.path.exists(os.path.join(self._folder, "ready.json"))
        if status == USAGE or not ready:
            self._end(signal.SIGTERM)
            return status if status >= 0 else 128 - status
        while worker.latest and now - worker.latest[0] > self._within_s:
            worker.latest.popleft()
        who, how = f"worker {worker.number}", _how(status)
        if len(worker.latest) == self._restarts:
            said = f"{self._restarts} restarts within {self._within_s / 60:g} minutes are enough"
            _say(f"{who} {how}; {said}: all workers end; see the log above")
            self._end(signal.SIGTERM)
            return 1
        pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2 ** len(worker.latest)) if worker.latest or status else 0.0
        worker.latest.append(now)
        worker.starts_at = now + pause_s
        _say(f"{who} {how}; it is started again in {pause_s:g} s ({len(worker.latest)} of {self._restarts})")
        return None

    def _start(self, worker: _Worker) -> None:
        who = f"{worker.number}/{len(self._workers)}:{self._folder}"
        command = [*self._command, "--worker", who]
        worker.pulse = Pulse(self._still_s)
        worker.process = subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent())

    def _hand_on(self) -> None:
        while self._told:
            number = self._told.pop(0)
            if number == getattr(signal, "SIGHUP", None):
                self._send(number)
            else:
                self._end(number)

    def _end(self, number: int) -> None:
        self._ending = True
        self._send(number)

    def _send(self, number: int) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.send_signal(number)

    def _beats(self, worker: _Worker) -> bytes:
        with suppress(OSError), open(self._page(worker), "rb", buffering=0) as page:
            return page.read(_BEATS_BYTES)
        return b""

    def _forget(self, worker: _Worker) -> None:
        """What a dead worker had inside is not inside any more."""
        with suppress(OSError), open(self._page(worker), "r+b") as page:
            page.write(bytes(os.fstat(page.fileno()).st_size))

    def _page(self, worker: _Worker) -> str:
        return os.path.join(self._folder, f"{worker.number}.page")


def _how(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"


def _end_with_parent() -> Callable[[], object] | None:
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def end_with_parent() -> None:
        prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended before that was said
            os._exit(1)

    return end_with_parent


def _say(what: str) -> None:
    line = f"{time.strftime('%H:%M:%S')} WARNING supervisor: {what}"
    if os.environ.get("TESSERA_LOG") == "json":  # as `logs.py` writes it
        now = time.time()
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": at, "level": "WARNING", "logger": "supervisor", "message": what, "pid": os.getpid()})
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--crew":
        sys.exit(Crew(sys.argv[4:], sys.argv[3], int(sys.argv[2])).run())
    sys.exit(Supervisor(sys.argv[1:]).run())
