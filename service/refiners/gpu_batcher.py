"""The dense CRF on the GPU, for many requests: what waits when the device is free goes together.

One thread has the device. Images of one K and with the same parameters share a launch, whatever their sizes; nothing is
made to wait for company. Whatever the device cannot do, the caller does on the CPU: see NotOnDevice.

Knows nothing of HTTP, of networks, of image files.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from models.crf.cuda import available
from models.crf.cuda.memory import OutOfMemory
from models.crf.params import CRFParams
from models.deadline import DeadlineExceeded
from models.errors import TesseraError
from models.manifest import CodeSpec
from models.preprocess import Fit
from models.types import Array
from service.engines.base import first_line
from service.errors import Busy
from service.refiners.gpu_worker import ENGINES, Image, Worker, open_worker
from service.scheduling.completions import CompletionQueue
from service.settings import Settings

log = logging.getLogger("tessera")

IMAGES = 8  # of one launch: more gain nothing, and make the first wait for the last
TRANSFERRED = 64 << 20  # bytes of one launch's arrays and answers; one image is never too large


class NotOnDevice(TesseraError):
    """The device cannot refine this image now; nothing is wrong with it, and the CPU can."""


class DeviceLost(NotOnDevice):
    """The device works no more. So it stays until the server is started again."""


@dataclass(eq=False, slots=True)
class Job:
    """One image, and where its answer goes."""

    image: Image
    spec: CodeSpec
    params: CRFParams
    deadline: float
    done: asyncio.Future[Array]

    @property
    def group(self) -> tuple[int, CodeSpec, CRFParams]:
        """Only equal ones share a launch."""
        return len(self.image.scores), self.spec, self.params


class GpuBatcher:
    """First in, first out; what has the first one's group goes along.

    worker  where a batch is refined
    clock   seconds; the deadlines given to `refined` are times of this clock
    """

    def __init__(self, worker: Worker, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._clock = clock
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()  # of what waits, and of the next two
        self._closed = False
        self._lost: str | None = None
        self._delivery: CompletionQueue[Array] = CompletionQueue()
        self._thread = threading.Thread(target=self._work, name="crf on the device")
        self._thread.start()

    @classmethod
    def open(cls, settings: Settings) -> GpuBatcher | None:
        """The GPU's, once it has refined a drawn photo as the CPU does; None, and why in the log, where that fails."""
        worker = open_worker(settings)
        if isinstance(worker, str):
            if settings.engine in ENGINES and not available():
                level = logging.WARNING
            else:
                level = logging.INFO if driver() else logging.DEBUG  # where there is no GPU nobody misses it
            log.log(level, "the CRF runs on the CPU: %s", worker)
            return None
        log.info("the CRF runs on the GPU")
        return cls(worker)

    @property
    def alive(self) -> bool:
        """Whether images are still taken."""
        return self._lost is None and not self._closed

    @property
    def waiting(self) -> int:
        """Images that no launch has taken yet."""
        return len(self._waiting)

    async def refine(
        self,
        scores: Array,
        code: Array | None,
        fitted: Fit,
        spec: CodeSpec,
        params: CRFParams,
        *,
        deadline: float | None = None,
    ) -> Array:
        """models.refine.refine, at the network's size: uint8 [H, W]. Cancelled while it waits, it never runs.

        Raises DeadlineExceeded at the deadline, CRFError and LatticeError as the CPU does; NotOnDevice where the CPU
        should be asked; Busy when the server ends.
        """
        done: asyncio.Future[Array] = asyncio.get_running_loop().create_future()
        job = Job(Image(scores, code, fitted), spec, params, math.inf if deadline is None else deadline, done)
        with self._changed:
            if self._lost is not None:
                raise DeviceLost(self._lost)
            if self._closed:
                raise _closed()
            self._waiting.append(job)
            self._changed.notify()
        try:
            async with asyncio.timeout(None if deadline is None else deadline - self._clock()):
                return await done
        except TimeoutError:
            raise _late() from None

    def close(self) -> None:
        """What runs is still answered, what waits is refused with Busy. Returns at once."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    async def ended(self) -> None:
        """Returns when the device works no more, once `close` was called."""
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        """The device's thread."""
        while batch := self._take():
            self._answer(batch, self._answers(batch))
            del batch  # it may sleep for long

    def _take(self) -> list[Job]:
        """Who goes together next; sleeps until there is somebody, and nobody is there when it is over."""
        while True:
            with self._changed:
                while not (self._waiting or self._closed or self._lost):
                    self._changed.wait()
                left = [job for job in self._waiting if not job.done.done()]  # done: who asked has left
                if self._closed or self._lost:
                    self._waiting.clear()
                    self._answer(left, [DeviceLost(self._lost) if self._lost else _closed() for _ in left])
                    return []
                now = self._clock()
                late = [job for job in left if job.deadline <= now]
                left = [job for job in left if job.deadline > now]
                batch = _together(left)
                self._waiting = deque(job for job in left if job not in batch)
            self._answer(late, [_late() for _ in late])
            if batch:
                return batch

    def _answers(self, batch: Sequence[Job]) -> list[Array | Exception]:
        """An answer for each, after as many launches as it takes."""
        if self._lost is not None:
            return [DeviceLost(self._lost) for _ in batch]
        alone = [batch[i : i + 1] for i in range(len(batch))]
        halves = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        try:
            return list(self._worker([job.image for job in batch], batch[0].spec, batch[0].params))
        except (MemoryError, OutOfMemory) as error:
            if len(batch) == 1:
                return [NotOnDevice(f"the device has no room for this image ({first_line(error)})")]
            log.warning("no memory on the device for the CRF of %d images; halving them", len(batch))
            parts = halves
        except (TesseraError, ValueError) as error:
            if len(batch) == 1:
                return [error]
            parts = alone
        except Exception as error:
            if not self._worker.works():
                return self._lose(batch, error)
            log.exception("the CRF of %d images failed on the device, which works", len(batch))
            if len(batch) == 1:
                return [NotOnDevice(f"the device could not refine this image ({first_line(error)})")]
            parts = alone
        return [answer for part in parts for answer in self._answers(part)]

    def _lose(self, batch: Sequence[Job], error: Exception) -> list[Array | Exception]:
        reason = f"the CRF's device failed ({first_line(error)})"
        log.error("%s; the CPU goes on", reason)
        with self._changed:
            self._lost = reason
        return [DeviceLost(reason) for _ in batch]

    def _answer(self, jobs: Sequence[Job], answers: Sequence[Array | Exception]) -> None:
        if jobs:
            self._delivery.put(jobs[0].done.get_loop(), list(zip((job.done for job in jobs), answers, strict=True)))


def driver() -> bool:
    """Whether NVIDIA's driver is on this machine: its library can be loaded, whatever else is missing."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        with suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


def _together(waiting: Sequence[Job]) -> list[Job]:
    """The first, and what goes along with it."""
    batch: list[Job] = []
    nbytes = 0
    for job in waiting:
        fits = not batch or (job.group == batch[0].group and nbytes + job.image.nbytes <= TRANSFERRED)
        if fits:
            batch.append(job)
            nbytes += job.image.nbytes
        if len(batch) == IMAGES:
            break
    return batch


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the CRF's turn came too late; allow more with timeout_ms, or come when less is waiting")


def _closed() -> Busy:
    return Busy("the server is ending; ask another one, or come back in a moment", reason="draining")
