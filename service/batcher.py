"""Groups waiting images into batches for one runtime.

Knows nothing of HTTP, of image files, of clusters: arrays in, arrays out. How many may wait is bounded at
the door (`admission.py`); here nothing is refused, and a batch is never made to wait for company.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.assign import Array
from models.bundle import Encoded, Encoder


class Batched(NamedTuple):
    """What one image got: scores [K, h, w] and code [D, h, w], and the seconds it waited and ran."""

    scores: Array
    code: Array | None
    queue_s: float
    encoder_s: float


@dataclass(eq=False)
class Job:
    """One image at the network's size, uint8 [H, W, 3], and where its answer goes."""

    pixels: Array
    code: bool
    done: asyncio.Future[Batched]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """First in, first out; what has the same shape as the first one goes along, within the budget.

    max_batch_size  images;  max_batch_mpx  megapixels of a batch at the network's size
    on_batch        told the size of every batch
    """

    def __init__(
        self,
        encode: Encoder,
        *,
        max_batch_size: int = 1,
        max_batch_mpx: float = 8.0,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._encode = encode
        self._max_batch_size = max_batch_size
        self._max_batch_px = max_batch_mpx * 1e6
        self._on_batch = on_batch
        self._queue: deque[Job] = deque()
        self._arrived = asyncio.Event()
        # One thread: the runtime uses every core by itself, and several runs at once only cost memory.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self.running = 0

    @property
    def waiting(self) -> int:
        """Images that no batch has taken yet."""
        return len(self._queue)

    async def submit(self, pixels: Array, *, code: bool = False) -> Batched:
        """The network's answer for one image uint8 [H, W, 3]. Cancelled while it waits, it never runs."""
        job = Job(pixels, code, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._arrived.set()
        try:
            return await job.done
        except asyncio.CancelledError:
            if job in self._queue:
                self._queue.remove(job)
            raise

    async def serve(self) -> None:
        """Run batches until cancelled: take what was queued while the runtime was busy."""
        try:
            while True:
                await self._arrived.wait()
                if jobs := self._take():
                    await self._run(jobs)
                else:
                    self._arrived.clear()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[Job]:
        jobs: list[Job] = []
        pixels = 0
        for job in list(self._queue):
            if jobs and job.pixels.shape != jobs[0].pixels.shape:
                continue  # keeps its turn
            pixels += job.pixels.shape[0] * job.pixels.shape[1]
            if jobs and (len(jobs) == self._max_batch_size or pixels > self._max_batch_px):
                break
            self._queue.remove(job)
            jobs.append(job)
        return jobs

    async def _run(self, jobs: list[Job]) -> None:
        started = time.perf_counter()
        self.running = len(jobs)
        try:
            pixels = np.stack([job.pixels for job in jobs])
            code = any(job.code for job in jobs)
            loop = asyncio.get_running_loop()
            encoded = await loop.run_in_executor(self._thread, lambda: self._encode(pixels, code=code))
        except Exception as error:
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        finally:
            self.running = 0
        self._on_batch(len(jobs))
        self._deliver(jobs, encoded, started)

    @staticmethod
    def _deliver(jobs: list[Job], encoded: Encoded, started: float) -> None:
        took = time.perf_counter() - started
        for i, job in enumerate(jobs):
            if not job.done.done():  # its client may have left meanwhile
                code = None if encoded.code is None else encoded.code[i]
                job.done.set_result(Batched(encoded.scores[i], code, started - job.since, took))
