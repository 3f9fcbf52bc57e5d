"""Starts a server again when it ends by a failure: python supervisor.py COMMAND …

A script of the standard library alone, in which `tessera serve --supervise` goes on, so that the parent stays small.
A server that ends with 0, or with 2 (a setting or an option is wrong, and would be again), is not started again.
Signals are handed on; the server ends with its supervisor, also where that is killed (on Linux).

Knows nothing of what the command does.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType

RESTARTS = 5
WITHIN_S = 600.0
LONGEST_PAUSE_S = 30.0
USAGE = 2
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
            how = f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
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
    line = f"{time.strftime('%H:%M:%S')} supervisor: {what}"
    if os.environ.get("TESSERA_LOG") == "json":  # as `logs.py` writes it
        now = time.time()
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": at, "level": "WARNING", "logger": "supervisor", "message": what, "pid": os.getpid()})
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(Supervisor(sys.argv[1:]).run())
