"""What all requests share: room, memory, counters, limits, threads.

Knows nothing of HTTP or of a request's way.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.io.samples import Limits
from service.metrics import Metrics
from service.refiners.gpu_batcher import GpuBatcher
from service.refiners.jit_warmup import JitWarmup
from service.refiners.process_pool import ProcessPoolRefiner
from service.scheduling.admission import Admission
from service.scheduling.result_cache import SingleFlightCache
from service.settings import Settings

if TYPE_CHECKING:
    from service.inference.results import NetworkOutput, Refined

_SAMPLE = 16  # one image in so many has its margin taken where the answer does not need it


@dataclass
class Runtime:
    """Made once a server; `close` lets its threads and processes go."""

    admission: Admission
    metrics: Metrics
    limits: Limits
    seen: SingleFlightCache[NetworkOutput]
    refined: SingleFlightCache[Refined]
    workers: ThreadPoolExecutor
    # The CRF takes a second where the rest takes milliseconds: it must not stand in front of decoding.
    crf_workers: ThreadPoolExecutor
    cores: int
    crf_timeout_s: float
    device: GpuBatcher | None  # the CRF's GPU
    processes: ProcessPoolRefiner | None  # pydensecrf's, where that is the CRF
    compiling: JitWarmup = field(default_factory=JitWarmup)  # our CRF, where an install has it not ready yet
    _count: itertools.count[int] = field(default_factory=itertools.count)
    _refining: int = 0

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics) -> Runtime:
        """As the settings say; 0 workers = one per core, and as many for the CRF. Raises SettingsError."""
        cores = (os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()) or 1
        workers = settings.workers or cores
        return cls(
            Admission(
                max_images=settings.max_queue_size,
                max_mpx=settings.max_queue_mpx,
                max_bytes=settings.max_bodies_bytes,
                max_key_images=settings.max_key_images,
            ),
            metrics,
            Limits(max_bytes=settings.max_bytes, max_mpx=settings.max_mpx, max_side_px=settings.max_side_px),
            SingleFlightCache(settings.cache_bytes, metrics.asked),
            SingleFlightCache(settings.cache_bytes // 4),
            ThreadPoolExecutor(workers, thread_name_prefix="worker"),
            ThreadPoolExecutor(workers, thread_name_prefix="crf"),
            cores,
            settings.crf_timeout_s,
            GpuBatcher.open(settings) if settings.crf == "dense" else None,
            ProcessPoolRefiner.open(settings, workers),
        )

    def sampled(self) -> bool:
        """Whether this image's margin goes into the metrics although nobody asked for it."""
        return next(self._count) % _SAMPLE == 0

    @contextmanager
    def refining(self) -> Iterator[None]:
        """Around one image's CRF, waiting included."""
        self._refining += 1
        try:
            yield
        finally:
            self._refining -= 1

    def crf_threads(self) -> int:
        """For one image: every core where it is alone; else one, because images side by side are faster still."""
        return self.cores if self._refining == 1 else 1

    def close(self) -> None:
        """Let the threads go; what has not begun never does."""
        self.workers.shutdown(wait=False, cancel_futures=True)
        self.crf_workers.shutdown(wait=False, cancel_futures=True)
        if self.device is not None:
            self.device.close()
        if self.processes is not None:
            self.processes.close()
