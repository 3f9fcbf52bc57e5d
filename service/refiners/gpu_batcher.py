"""The dense CRF on the GPU, for many requests: what waits when the device is free goes together.

One thread has the device. Whatever the device cannot do, the caller does on the CPU: see NotOnDevice.

Knows nothing of HTTP, of networks, of image files.
"""

import ctypes
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from models.crf.cuda import available
from models.crf.cuda.memory import OutOfMemory
from models.crf.params import CRFParams
from models.errors import TesseraError
from models.manifest import CodeSpec
from models.preprocess import Fit
from models.types import Array
from service.engines.base import first_line
from service.refiners.gpu_worker import ENGINES, Image, Worker, open_worker
from service.scheduling.batcher import Batcher
from service.settings import Settings

log = logging.getLogger("tessera")

IMAGES = 8  # of one launch: more gain nothing, and make the first wait for the last
TRANSFERRED = 64 << 20  # bytes of one launch's arrays and answers; one image is never too large


class NotOnDevice(TesseraError):
    """The device cannot refine this image now; nothing is wrong with it, and the CPU can."""


class DeviceLost(NotOnDevice):
    """The device works no more. So it stays until the server is started again."""


_Job = tuple[Image, CodeSpec, CRFParams]


class GpuBatcher:
    """Fair between keys; images of one K and with the same parameters share a launch, whatever their sizes.

    worker  where a batch is refined
    longest_s  of one batch; a device that takes longer is lost
    clock   seconds; the deadlines given to `refine` are times of this clock
    """

    def __init__(
        self, worker: Worker, *, longest_s: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._worker = worker
        self._lost: str | None = None
        self._batcher: Batcher[_Job, Array] = Batcher(
            self._refine_batch,
            name="crf on the device",
            max_size=IMAGES,
            max_cost=TRANSFERRED,
            longest_s=longest_s,
            clock=clock,
        )

    @classmethod
    def open(cls, settings: Settings) -> "GpuBatcher | None":
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
        return cls(worker, longest_s=settings.engine_timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the device still works."""
        return self._lost is None

    @property
    def waiting(self) -> int:
        """Images that no launch has taken yet."""
        return self._batcher.waiting

    async def refine(
        self,
        scores: Array,
        code: Array | None,
        fitted: Fit,
        spec: CodeSpec,
        params: CRFParams,
        *,
        key: str = "",
        priority: float = 0,
        deadline: float = math.inf,
    ) -> Array:
        """models.refine.refine, at the network's size: uint8 [H, W]. Cancelled while it waits, it never runs.

        key, priority, deadline  as Batcher.submit has them

        Raises DeadlinePassed and Busy as that does, CRFError as the CPU does; NotOnDevice where the
        CPU should be asked.
        """
        image = Image(scores, code, fitted)
        done = await self._batcher.submit(
            (image, spec, params),
            group=(len(scores), spec, params),
            cost=image.nbytes,
            key=key,
            priority=priority,
            deadline=deadline,
        )
        return done.answer

    def tend(self, elapsed_s: float) -> None:
        """Give a device up that hangs or whose thread has died: its images, and those that wait, are the CPU's.

        elapsed_s  since the last call
        """
        if self._batcher.tend(elapsed_s, DeviceLost) and self._lost is None:
            self._lost = "the CRF's device does not come back"
            log.error("%s; the CPU goes on", self._lost)
            lost = self._lost
            self._batcher.abandon(lambda: DeviceLost(lost), lambda: DeviceLost(lost))

    def close(self) -> None:
        """What runs is still answered, what waits is refused with Busy. Returns at once."""
        self._batcher.close()

    async def ended(self) -> None:
        """Returns when the device works no more, once `close` was called."""
        await self._batcher.ended()

    def _refine_batch(self, jobs: Sequence[_Job]) -> list[Array | Exception]:
        """An answer for each, after as many launches as it takes. Raises MemoryError where several have no room."""
        if self._lost is not None:
            return [DeviceLost(self._lost) for _ in jobs]
        try:
            return list(self._worker([job[0] for job in jobs], *jobs[0][1:]))
        except (MemoryError, OutOfMemory) as error:
            if len(jobs) > 1:
                raise MemoryError from None
            return [NotOnDevice(f"the device has no room for this image ({first_line(error)})")]
        except (TesseraError, ValueError) as error:
            if len(jobs) == 1:
                return [error]
        except Exception as error:
            if not self._worker.works():
                self._lost = f"the CRF's device failed ({first_line(error)})"
                log.error("%s; the CPU goes on", self._lost)
                return [DeviceLost(self._lost) for _ in jobs]
            log.exception("the CRF of %d images failed on the device, which works", len(jobs))
            if len(jobs) == 1:
                return [NotOnDevice(f"the device could not refine this image ({first_line(error)})")]
        return [answer for job in jobs for answer in self._refine_batch([job])]


def driver() -> bool:
    """Whether NVIDIA's driver is on this machine: its library can be loaded, whatever else is missing."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        with suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False
