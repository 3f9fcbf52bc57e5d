"""What a process of the CRF does in these tests: as it is told, by an option; its answer is its own number."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.crf.params import CRFError
from models.deadline import check_time
from models.types import Array


class Unreadable(Exception):
    """It can be pickled, and not be made again."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(one + other)


def number(scores: Array, code: Array | None, fitted: Any, *, deadline: float, **told: Any) -> Array:
    """int64 [2]: the process, and the first of the scores.

    die      a file: whoever finds it there takes it away and dies;  dies  in any case
    exits    with SystemExit;  unreadable  raises what does not survive the way back
    refuse   what is raised;  busy_s  how long it takes, as a CRF;  deaf_s  how long, whatever the deadline
    """
    if told.get("dies") or (told.get("die") and Path(told["die"]).exists()):
        if told.get("die"):
            Path(told["die"]).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if told.get("exits"):
        raise SystemExit(3)
    if told.get("unreadable"):
        raise Unreadable(1, 2)
    if told.get("refuse"):
        raise CRFError(told["refuse"])
    time.sleep(told.get("deaf_s", 0.0))
    until = time.monotonic() + told.get("busy_s", 0.0)
    while time.monotonic() < until:
        check_time(deadline)
        time.sleep(0.01)
    return np.array([os.getpid(), int(scores.flat[0])])
