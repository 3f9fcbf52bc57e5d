"""Engines that fail in one known way, under the real command: real signals, real sockets, no GPU.

    DOUBLE=hang python -c "from tests.torture.doubles import main; main()" serve --bundle …

Each is the tiny network of `tests/tiny.py` until it meets an image whose first pixel has the red of `SIGNAL`.

Knows nothing of the tests that use them.
"""

import itertools
import os
import sys
import threading
import time
from functools import partial
from typing import Any

import numpy as np

from models.bundle import Bundle
from models.inference import Prediction
from service import app, cli
from tessera.cli import main as tessera
from tests.service.fakes import FakeEngine

SIGNAL = 77
SLOW_S = 0.1
ROOM = 3  # images that `small` can hold
REOPEN_S = 1.0  # that a fresh engine takes to open, so that it can be seen that there is none


def _called(pixels: Any) -> bool:
    return bool((pixels[:, 0, 0, 0] == SIGNAL).any())


class Slow(FakeEngine):
    """Takes its time over every image."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        time.sleep(SLOW_S * len(pixels))
        return super().__call__(pixels, code=code)


class Hang(FakeEngine):
    """Never comes back from the image it was called with."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        if _called(pixels):
            threading.Event().wait()
        return super().__call__(pixels, code=code)


class Dies(FakeEngine):
    """Takes its thread along."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        if _called(pixels):
            raise SystemExit
        return super().__call__(pixels, code=code)


class NotFinite(FakeEngine):
    """Answers NaN in one place."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        scores, codes = super().__call__(pixels, code=code)
        if _called(pixels):
            scores = scores.copy()
            scores[:, 0, 0, 0] = np.nan
        return Prediction(scores, codes)


class Small(FakeEngine):
    """A device with room for three images, asked for sixteen at once."""

    batch = 16

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        time.sleep(0.02)  # so that others come meanwhile
        if len(pixels) > ROOM:
            raise MemoryError
        return super().__call__(pixels, code=code)


class Company(FakeEngine):
    """Takes eight at once, and long enough for eight to come."""

    batch = 8

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        time.sleep(0.02)
        return super().__call__(pixels, code=code)


ENGINES = {
    "plain": FakeEngine,
    "slow": Slow,
    "hang": Hang,
    "dies": Dies,
    "nan": NotFinite,
    "small": Small,
    "company": Company,
}


def _jumping_clock() -> None:
    """The wall clock goes a day ahead and a day back, at every look; what counts time has to look at another."""
    real, jumps = time.time, itertools.cycle((0.0, 86400.0, -86400.0))
    time.time = lambda: real() + next(jumps)


def main() -> None:
    """The `tessera` command with one of ENGINES under it, or (DOUBLE=clock) on a wall clock that jumps."""
    name = os.environ.pop("DOUBLE")
    if name == "clock":
        _jumping_clock()
        name = "plain"
    opened = itertools.count()

    def open_engine(bundle: Bundle) -> FakeEngine:
        if next(opened):
            time.sleep(REOPEN_S)
        return ENGINES[name]()

    cli.create_app = partial(app.create_app, open_engine=open_engine)
    sys.argv[0] = "tessera"
    tessera()
