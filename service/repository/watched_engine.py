"""An engine in its turn, watched: one run at a time, on the CPU one of all engines', and none of them for ever.

A run that takes longer than it may is given up: its turn goes to whoever is next, and the engine is not called again.
Waiting for a turn is no part of a run.

Knows nothing of queues, of bundles, of what becomes of a model whose engine is lost.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from models.inference import Prediction
from models.types import Array
from service.engines import Engine
from service.engines.base import Shape
from service.errors import NetworkFailed
from service.scheduling.background import Patience
from service.scheduling.fair_lock import FairLock

log = logging.getLogger("tessera")

T = TypeVar("T")
COLD = 10  # times as long may a first run take on a device that chooses, or compiles, kernels for each new shape
_SIZES = 5  # of batches that a device is warmed at
_REMEMBERED_SHAPES = 256


class _Run(NamedTuple):
    """Of an engine: who runs it, in which lock, and for how many seconds at most."""

    thread: int
    lock: FairLock
    longest_s: float


class WatchedEngine:
    """A Predictor. Whoever looks after it calls `look` now and then, and `abandon` once that says so.

    cpu        the turn of all engines that run on the CPU
    longest_s  of a run at a shape that was met before, for each image that a CPU runs one after the other

    lost       it hung and was given up
    """

    def __init__(self, engine: Engine, cpu: FairLock, longest_s: float) -> None:
        self.engine = engine
        self.lost = self._closed = False
        self._cpu, self._own = cpu, FairLock()
        self.longest_s = longest_s
        self._met: set[tuple[int, ...]] = set()
        self._run: _Run | None = None
        self._patience = Patience()

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        """As the engine answers. Raises NetworkFailed where it was given up, besides what the engine raises."""
        if self.engine.provider == "cpu":  # a GPU that fails leaves the CPU
            return self._in_turn(self._cpu, len(pixels), lambda: self.engine(pixels, code=code))
        known = pixels.shape in self._met
        prediction = self._in_turn(self._own, 1 if known else COLD, lambda: self.engine(pixels, code=code))
        if not known and len(self._met) < _REMEMBERED_SHAPES:
            self._met.add(pixels.shape)
        return prediction

    def warm(self, shapes: Iterable[Shape]) -> None:
        """Engine.warm, in its turn."""
        wanted = list(shapes)
        on_cpu = self.engine.provider == "cpu"
        lock, each = (self._cpu, 1) if on_cpu else (self._own, COLD * _SIZES)
        self._in_turn(lock, max(1, len(wanted)) * each, lambda: self.engine.warm(wanted))

    def look(self, elapsed_s: float) -> bool:
        """Whether a run hangs.

        elapsed_s  since the last look
        """
        run = self._run
        return run is not None and self._patience.look(run, elapsed_s) > run.longest_s

    def abandon(self) -> bool:
        """Never call it again, and let others have its turn; whether it still runs: then it is closed once it ends."""
        self.lost = True
        run = self._run
        if run is not None:
            run.lock.expel(run.thread)
        return run is not None

    def close(self) -> None:
        """Give the network's memory back, once; a failure is only logged."""
        if self._closed:
            return
        self._closed = True
        try:
            self.engine.close()
        except Exception:
            log.exception("the engine %s could not be closed", self.engine.name)

    def _in_turn(self, lock: FairLock, times: int, work: Callable[[], T]) -> T:
        with lock:
            if self.lost:
                raise NetworkFailed("this engine hung and was given up")
            self._run = _Run(threading.get_ident(), lock, times * self.longest_s)
            try:
                return work()
            finally:
                self._run = None
                self._close_if_lost()  # it came back, too late: nobody else has it

    def _close_if_lost(self) -> None:
        if self.lost:
            self.close()
