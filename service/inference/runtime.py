"""The runtime that all requests share: admission, caches, limits, thread pools, refiners.

Knows nothing of HTTP or of one image's way.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from models import hardware
from models.io.decoder_pool import DecoderPool
from models.io.samples import Limits
from models.types import Array
from service.fleet.fleet import Fleet
from service.inference.lately import Lately
from service.inference.results import NetworkOutput
from service.metrics import Metrics
from service.refiners.gpu_batcher import GpuBatcher
from service.refiners.jit_warmup import JitWarmup
from service.refiners.process_pool import ProcessPoolRefiner
from service.scheduling.admission import Admission
from service.scheduling.backpressure import Backpressure
from service.scheduling.batcher import Batcher, thread_pool
from service.scheduling.result_cache import SingleFlightCache
from service.settings import Settings
from service.tracing.traces import Tracer

_AHEAD = 2  # images of a key, for each thread of the CRF, that may be between their network and their CRF's end
_HANGS = 2  # times as long as a request may take, and a job hangs: its request has long been answered
_LEAST_DECODERS = 2  # one file that takes long is not in everybody's way
_LEAST_IN_WINDOWS = 2  # one image that takes long is not in everybody's way


@dataclass
class Runtime:
    """Made once a server; `close` lets its threads and processes go.

    workers      decode images and encode answers
    large        does the same for large images, half as many at once as there are cores: no small one waits behind them
    windows      waits for the network, which sees the windows of images one after the other
    decoding     waits for decoder processes (`decoders`), which read what no header bounds: one thread for each of them
    crf_workers  refine: the CRF takes a second where the rest takes milliseconds, and must not stand in front of it
    before_crf   who may pass the network meanwhile: a flood's that ran ahead would slow down the CRFs of everybody
    cores        for the CRF of an image that is alone
    gpu          the CRF's, where there is one;  processes  pydensecrf's, where that is the CRF
    warmup       of our CRF, where an install has it not compiled yet
    tracer       keeps traces, where they are asked for
    lately       the images each caller was answered for
    joining      held while the pieces of a large body are put together: one in a turn of the loop
    """

    admission: Admission
    metrics: Metrics
    limits: Limits
    network_outputs: SingleFlightCache[NetworkOutput]
    refined_labels: SingleFlightCache[Array]
    workers: Batcher[Callable[[], Any], Any]
    large: Batcher[Callable[[], Any], Any]
    windows: Batcher[Callable[[], Any], Any]
    decoding: Batcher[Callable[[], Any], Any]
    crf_workers: Batcher[Callable[[], Any], Any]
    before_crf: Backpressure
    cores: int
    crf_timeout_s: float
    gpu: GpuBatcher | None
    processes: ProcessPoolRefiner | None
    decoders: DecoderPool = field(default_factory=DecoderPool)
    warmup: JitWarmup = field(default_factory=JitWarmup)
    tracer: Tracer | None = None
    joining: asyncio.Lock = field(default_factory=asyncio.Lock)
    lately: Lately = field(default_factory=Lately)

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics, fleet: Fleet | None = None) -> "Runtime":
        """As the settings say; 0 workers = one per core, and as many for the CRF. Raises SettingsError.

        fleet  the servers with which the bounds of what is inside are shared
        """
        cores = hardware.cores()
        workers = settings.workers or cores
        longest_s = _HANGS * settings.timeout_s
        return cls(
            Admission(
                max_images=settings.max_queue_size,
                max_mpx=settings.max_queue_mpx,
                max_bytes=settings.max_bodies_bytes,
                max_working_bytes=settings.max_working_bytes,
                max_key_images=settings.max_key_images,
                fleet=fleet,
            ),
            metrics,
            Limits(max_bytes=settings.max_bytes, max_mpx=settings.max_mpx, max_side_px=settings.max_side_px),
            SingleFlightCache(settings.cache_bytes, metrics.asked),
            SingleFlightCache(settings.cache_bytes // 4),
            thread_pool("worker", workers, longest_s, settings.job_every),
            thread_pool("large", max(1, cores // 2), longest_s, settings.job_every),
            thread_pool("windows", max(_LEAST_IN_WINDOWS, cores), longest_s, settings.job_every),
            thread_pool("decoding", max(_LEAST_DECODERS, cores), longest_s, settings.job_every),
            thread_pool("crf", workers, longest_s, settings.job_every),
            Backpressure(_AHEAD * workers),
            cores,
            settings.crf_timeout_s,
            GpuBatcher.open(settings) if settings.crf == "dense" else None,
            ProcessPoolRefiner.open(settings, workers),
        )

    def tend(self, elapsed_s: float) -> None:
        """Replace what hangs or has died of the threads; `elapsed_s` since the last call."""
        for pool in (self.workers, self.large, self.windows, self.decoding, self.crf_workers):
            pool.tend(elapsed_s)
        if self.gpu is not None:
            self.gpu.tend(elapsed_s)

    def close(self) -> None:
        """Let the threads go; what has not begun never does."""
        for part in (
            self.workers,
            self.large,
            self.windows,
            self.decoding,
            self.crf_workers,
            self.gpu,
            self.processes,
            self.decoders,
        ):
            if part is not None:
                part.close()
