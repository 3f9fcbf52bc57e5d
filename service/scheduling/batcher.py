"""Groups waiting images into batches for one runtime.

One thread runs the network and takes the next batch by itself, so that the network never waits for the event loop
while something is queued; answers go back with one wake-up of the loop for as many as are ready. A batch is never
made to wait for company: what is queued when the network is free goes.

Knows nothing of HTTP, of image files, of clusters: arrays in, arrays out. How many may wait is bounded at
the door (`admission.py`), who goes first is decided in `fair_queue.py`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from models.inference import Predictor
from models.types import Array
from service.errors import Busy, DeadlinePassed
from service.scheduling.completions import CompletionQueue
from service.scheduling.fair_queue import Entry, FairQueue, Shape

log = logging.getLogger("tessera")

# Why a batch is no larger: max_batch_size, max_batch_mpx, what else waits has other shapes, nothing else waits,
# or a larger one did not fit into memory.
Reason = Literal["full", "budget", "shape", "drained", "memory"]

_MEASURED = 8  # batches without a pause in between, before the time a batch takes counts as known
_LATEST = 16  # of them are looked at
_MARGIN = 2  # an image is refused when the wait is longer than this many times what it allows


class Batched(NamedTuple):
    """What one image got: scores [K, h, w] and code [D, h, w], and the seconds it waited and ran.

    The arrays are views into those of its batch: whoever keeps one for long copies it.
    """

    scores: Array
    code: Array | None
    queue_s: float
    encoder_s: float


@dataclass(eq=False, slots=True)
class Job(Entry):
    """One image at the network's size, uint8 [H, W, 3], and where its answer goes."""

    pixels: Array
    code: bool
    done: asyncio.Future[Batched]
    since: float


class Batcher:
    """Fair between keys, by priority within one, first in, first out between equals (`fair_queue.py`).

    max_batch_size  images;  max_batch_mpx  megapixels of a batch at the network's size; one image is never too large
    on_batch        told size and reason of every batch that ran, on the event loop
    clock           seconds; the deadlines given to `submit` are times of this clock

    running         images in the network now
    """

    def __init__(
        self,
        encode: Predictor,
        *,
        max_batch_size: int = 1,
        max_batch_mpx: float = 8.0,
        on_batch: Callable[[int, Reason], object] = lambda size, reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encode = encode
        self._max_batch_size = max_batch_size
        self._max_batch_px = round(max_batch_mpx * 1e6)
        self._on_batch = on_batch
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="encoder")
        self._lock = threading.Lock()  # of the line, the times, `_idle` and `_closed`
        self._turns: FairQueue[Job] = FairQueue()
        self._times: deque[float] = deque(maxlen=_LATEST)  # seconds of the latest batches since it was last idle
        self._idle = False
        self._closed = False
        self._awake = threading.Lock()  # held while there is nothing to do
        self._awake.acquire()
        self._delivery: CompletionQueue[Batched] = CompletionQueue()
        self.running = 0

    @property
    def waiting(self) -> int:
        """Images that no batch has taken yet."""
        return self._turns.waiting

    async def submit(
        self, pixels: Array, *, code: bool = False, key: str = "", priority: float = 0, deadline: float | None = None
    ) -> Batched:
        """The network's answer for one image uint8 [H, W, 3]. Cancelled while it waits, it never runs.

        key       whose it is: keys take turns;  priority  of this key's, higher goes first; a step outweighs one
                  second of waiting
        deadline  in the batcher's clock: from then on it is not run

        Raises DeadlinePassed when its turn came too late; Busy when that is plain to see beforehand, when the
        memory does not suffice, or when the batcher is closed; whatever the encoder raised for its batch.
        """
        now = self._clock()
        done: asyncio.Future[Batched] = asyncio.get_running_loop().create_future()
        job = Job(
            key, pixels.shape, now - priority, math.inf if deadline is None else deadline, pixels, code, done, now
        )
        with self._lock:
            if self._closed:
                raise _closed()
            if deadline is not None and self._turns.waiting:
                self._check(job, now)
            self._turns.add(job)
            if self._idle:
                self._idle = False
                self._awake.release()
        try:
            return await done
        except asyncio.CancelledError:
            with self._lock:
                if self._turns.withdraw(job):
                    job.pixels = _NOTHING  # the line may keep the entry for a while
            raise

    async def serve(self) -> None:
        """Run batches until cancelled. What runs then is still answered; what waits is refused with Busy."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        try:
            await self._loop.create_future()
        finally:
            with self._lock:
                self._closed = True
                left = self._turns.clear()
                if self._idle:
                    self._idle = False
                    self._awake.release()
            for job in left:
                if not job.done.done():
                    job.done.set_exception(_closed())

    async def ended(self) -> None:
        """Returns when the encoder runs no more, once `serve` was cancelled: then what it needs may be closed."""
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def _check(self, job: Job, now: float) -> None:
        """Raises Busy when the wait is certain to be longer than the image allows.

        Certain: counted in full batches, at the quickest of the latest, of those ahead whom it cannot overtake.
        """
        if len(self._times) < _MEASURED:
            return
        quickest = min(self._times)
        allowed = _MARGIN * (job.deadline - now)
        if self._turns.waiting // self._max_batch_size * quickest <= allowed:
            return
        shape = None if self._max_batch_size == 1 else job.shape
        wait = self._turns.ahead(job.key, job.rank, shape) // self._max_batch_size * quickest
        if wait > allowed:
            raise Busy(
                f"{self._turns.waiting} images are waiting, about {wait:.1f} s of work, more than this one's time"
                " allows; allow more with timeout_ms, or come back later",
                reason="deadline",
                retry_after_s=min(60, math.ceil(wait)),
            )

    def _most(self, shape: Shape) -> int:
        return max(1, min(self._max_batch_size, self._max_batch_px // (shape[0] * shape[1])))

    def _work(self) -> None:
        """The encoder thread. It alone runs the network: that uses every core by itself."""
        while self._step():
            pass

    def _step(self) -> bool:
        """One batch, or one sleep; False when it is over."""
        with self._lock:
            batch, late = self._turns.take(self._clock(), self._most)
            self.running = len(batch)
            self._idle = idle = not batch and not self._closed
            left = self._turns.waiting
            if idle:
                self._times.clear()
        if late:
            gone = DeadlinePassed("its turn came too late; allow more with timeout_ms, or come when less is waiting")
            self._answer(late, [gone] * len(late), None)
        if batch:
            self._run(batch, self._reason(batch, left))
        elif idle:
            del late  # it may sleep for long
            self._awake.acquire()
        return bool(batch) or idle

    def _reason(self, batch: list[Job], left: int) -> Reason:
        if len(batch) == self._max_batch_size:
            return "full"
        if len(batch) == self._most(batch[0].shape):
            return "budget"
        return "shape" if left else "drained"

    def _run(self, batch: list[Job], reason: Reason) -> None:
        started = self._clock()
        answers: Sequence[Batched | Exception]
        ran: Reason | None = reason
        try:
            pixels = batch[0].pixels[None] if len(batch) == 1 else np.stack([job.pixels for job in batch])
            scores, codes = self._encode(pixels, code=any(job.code for job in batch))
            took = self._clock() - started
            answers = [
                Batched(scores[i], None if codes is None else codes[i], started - job.since, took)
                for i, job in enumerate(batch)
            ]
            with self._lock:
                self._times.append(took)
        except MemoryError:
            if len(batch) > 1:
                log.warning("no memory for a batch of %d images; halving it", len(batch))
                half = len(batch) // 2
                self._run(batch[:half], "memory")
                self._run(batch[half:], "memory")
                return
            answers, ran = [_no_memory(batch[0].shape)], None
        except Exception as error:
            answers, ran = [error] * len(batch), None
        self.running -= len(batch)
        self._answer(batch, answers, ran)

    def _answer(self, jobs: list[Job], answers: Sequence[Batched | Exception], reason: Reason | None) -> None:
        """Leave answers for the event loop."""
        assert self._loop is not None
        told = None if reason is None else partial(self._on_batch, len(jobs), reason)
        self._delivery.put(self._loop, list(zip((job.done for job in jobs), answers, strict=True)), told)


_NOTHING = np.empty((0, 0, 3), np.uint8)


def _closed() -> Busy:
    return Busy("this model is being put away; ask again in a moment", reason="draining")


def _no_memory(shape: Shape) -> Busy:
    return Busy(
        f"there is no memory for an image of {shape[1]}×{shape[0]} at the network's size now; come back, or send a"
        " smaller one",
        reason="memory",
    )
