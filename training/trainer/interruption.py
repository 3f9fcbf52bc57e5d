"""Signals that ask a training to stop, remembered until it can.

Knows nothing of checkpoints.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import torch

from models.errors import TesseraError
from training import distributed


class Interrupted(TesseraError):
    """Stopped by a signal, after a checkpoint."""

    exit_code = 130  # as a shell says of SIGINT


class Stop:
    """Remembers that someone asked to stop; a second Ctrl-C stops at once, without a checkpoint.

    Not of several processes: torchrun hands a Ctrl-C, which all of them have heard, on to them.
    """

    def __init__(self, resume_command: str) -> None:
        self.asked, self.heard, self.resume_command = False, False, resume_command
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.heard and distributed.is_main():
            os.write(2, b"\nstopping after this step, with a checkpoint; once more: at once, without\n")
        self.heard = True
        if distributed.world() == 1:
            self.asked = True
            signal.signal(number, self._before[number])

    def ask_all(self, *, save: bool) -> bool:
        """Whether all processes are to save now, as the main one finds it is time, or as any was asked to stop."""
        if distributed.world() > 1:
            said = torch.tensor([float(self.heard), float(save and distributed.is_main())])
            self.asked, save = distributed.all_reduce_(said, largest=True).bool().tolist()
        return self.asked or save

    def leave_if_asked(self, where: str) -> None:
        """Raises Interrupted, which says how to go on."""
        if self.asked:
            raise Interrupted(f"stopped at {where}; the checkpoint is written. To go on: {self.resume_command}")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
