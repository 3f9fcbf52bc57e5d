"""SIGHUP: what a closed terminal, `systemctl reload` and `kill -HUP` mean to a server.

Knows nothing of keys or of HTTP; SIGTERM and SIGINT are `server.py`'s.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("tessera")

_HANGUP = getattr(signal, "SIGHUP", None)


def hold_hangups() -> None:
    """At the start, before anybody could answer one: it is passed over, unless a terminal may go away."""
    if _HANGUP is not None and not _has_terminal():
        signal.signal(_HANGUP, signal.SIG_IGN)


def on_hangup(reload: Callable[[], object] | None) -> None:
    """From now on `reload` is called. Without it: a server that a terminal holds drains when that is closed, as at
    SIGTERM, and any other says that there is nothing to read again."""
    if _HANGUP is None or (reload is None and _has_terminal() and signal.getsignal(_HANGUP) is signal.SIG_IGN):
        return  # nohup

    def hangup(number: int, frame: FrameType | None) -> None:
        if reload is not None:
            reload()
        elif _has_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            log.info("SIGHUP: there is no file of keys to read again")

    signal.signal(_HANGUP, hangup)


def _has_terminal() -> bool:
    """Whether a terminal holds this process, whose end it hears of by SIGHUP."""
    try:
        with open("/dev/tty", "rb"):
            return os.isatty(sys.stderr.fileno()) or os.isatty(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError):
        return False
