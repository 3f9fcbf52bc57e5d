"""Signals that ask a training to stop, remembered until it can.

Knows nothing of checkpoints.
"""

import signal
import threading
from types import FrameType
from typing import Any, Self

from models.errors import TesseraError


class Interrupted(TesseraError):
    """Stopped by a signal, after a checkpoint."""

    exit_code = 130  # as a shell says of SIGINT


class Stop:
    """Remembers that someone asked to stop; a second Ctrl-C stops at once, without a checkpoint."""

    def __init__(self, resume_command: str) -> None:
        self.asked, self.resume_command = False, resume_command
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self._before[number])

    def leave_if_asked(self, where: str) -> None:
        """Raises Interrupted, which says how to go on."""
        if self.asked:
            raise Interrupted(f"stopped at {where}; the checkpoint is written. To go on: {self.resume_command}")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
