"""One image's way to the network and what comes back: decode → fit → batch.

Knows nothing of HTTP, of clusters, of answers. Decoding runs as a job in a thread pool, so the event loop only waits.
What the network says of an image is kept for a while (`result_cache.py`): other options for the same image begin after
it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from models.io.decode import decode
from models.io.samples import Decoded
from models.manifest import Manifest
from models.preprocess import Fit, fit
from models.types import Array
from service.errors import Busy, DeadlinePassed
from service.inference.options import ImageOptions
from service.inference.results import NetworkOutput
from service.inference.runtime import Runtime
from service.scheduling.admission import Ticket

if TYPE_CHECKING:
    from service.repository.served_model import Served

T = TypeVar("T")
STAGES = ("decode", "queue", "encoder", "assign", "crf", "encode")
_INLINE_BYTES = 2**18  # hashing more than this is worth a thread


class Photo(NamedTuple):
    """An image's pixels, as decoded and at the network's size."""

    decoded: Decoded
    fitted: Fit


@dataclass(frozen=True)
class Order:
    """What is asked of one image.

    timings   filled with milliseconds by stage
    caller    whose share of the house the image takes
    deadline  of time.monotonic(); nothing is begun later
    """

    data: bytes
    options: ImageOptions
    served: Served
    runtime: Runtime
    timings: dict[str, float]
    caller: str
    deadline: float


class Way:
    """One image's way through the house. Raises ImageError and its kin for the bytes, Busy, DeadlinePassed."""

    def __init__(self, order: Order, ticket: Ticket, *, wants_code: bool) -> None:
        self.order = order
        self.manifest: Manifest = order.served.bundle.manifest
        self._place = ticket
        self._wants_code = wants_code
        self._photo: Photo | None = None
        self.key: tuple[Hashable, ...] | None = None  # of the image in this model, where answers are kept
        order.timings.update(dict.fromkeys(STAGES, 0.0))

    async def output(self) -> NetworkOutput:
        """What the network says of the image, from this pass or an earlier one."""
        data, seen = self.order.data, self.order.runtime.seen
        if not seen.on:
            return await seen.get(None, self._encode)
        digest = hashlib.sha256(data) if len(data) < _INLINE_BYTES else await self.job(lambda: hashlib.sha256(data))
        options = self.order.options
        self.key = (digest.digest(), options.page, options.depth, self.order.served.bundle.digest)
        return await seen.get(self.key, self._encode, retry_on=(Busy, DeadlinePassed))

    async def job(self, work: Callable[[], T], pool: ThreadPoolExecutor | None = None) -> T:
        """Work done in a thread, of the house's workers where no pool is named."""

        def checked() -> T:
            self._check_deadline()
            return work()

        return await asyncio.get_running_loop().run_in_executor(pool or self.order.runtime.workers, checked)

    def set_megapixels(self, source: tuple[int, int]) -> None:
        """An image of this size (H, W) will be decoded. Raises Busy where its pixels do not fit."""
        if self._photo is None:
            self._place.set_megapixels(source[0] * source[1] / 1e6)

    def photo(self) -> Photo:
        """The image's pixels; decoded once a request, by a thread's job."""
        if self._photo is None:
            options = self.order.options
            with self.timed("decode"):
                limits = self.order.runtime.limits
                decoded = decode(self.order.data, limits=limits, depth=options.depth, page=options.page)
                self._photo = Photo(decoded, fit(decoded.image, self.manifest.input))
        return self._photo

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the block's time to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.order.timings[stage] += (time.perf_counter() - started) * 1000

    async def _encode(self) -> NetworkOutput:
        decoded, fitted = await self.job(self.photo)
        self._place.set_megapixels(fitted.source[0] * fitted.source[1] / 1e6)
        cosine = self.manifest.code.assignment == "cosine"
        batched = await self.order.served.batcher.submit(
            fitted.pixels,
            code=cosine and (self._wants_code or self.order.runtime.seen.on),
            key=self.order.caller,
            priority=self.order.options.priority,
            deadline=self.order.deadline,
        )
        self.order.timings["queue"] = batched.queue_s * 1000
        self.order.timings["encoder"] = batched.encoder_s * 1000
        scores, code = _alone(batched.scores), None if batched.code is None else _alone(batched.code)
        return NetworkOutput(scores, code, fitted.source, fitted.box, decoded.depth_rule)

    def _check_deadline(self) -> None:
        if time.monotonic() > self.order.deadline:
            raise DeadlinePassed("the time for this answer ran out; the work was dropped")


def _alone(array: Array) -> Array:
    """The same values without the rest of their batch, which would stay in memory as long as they do."""
    return array if array.base is None or array.base.nbytes == array.nbytes else array.copy()
