"""One image's way from its bytes to what the network says of it: decode → fit → batch.

Knows nothing of HTTP, of clusters, of answers. Decoding runs as a job in a thread, so the event loop only waits. What
the network says of an image is kept for a while (`result_cache.py`): other options for the same image begin after it.
"""

import hashlib
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from models.io.decode import decode
from models.io.samples import Decoded
from models.manifest import Manifest
from models.preprocess import Fit, fit
from models.types import Array
from service.errors import Busy, DeadlinePassed
from service.inference.options import ImageOptions
from service.inference.results import NetworkOutput
from service.inference.runtime import Runtime
from service.repository.served_model import Served
from service.scheduling.admission import Ticket
from service.scheduling.batcher import Batcher
from service.timings import Timings

O = TypeVar("O", bound=ImageOptions)  # noqa: E741
T = TypeVar("T")
_INLINE_BYTES = 2**18  # hashing more than this is worth a thread


@dataclass(eq=False)
class ImageTask(Generic[O]):
    """One image, and what is asked of it. Raises ImageError and its kin for the bytes, Busy, DeadlinePassed.

    caller    whose share of the server the image takes
    deadline  of time.monotonic(); nothing is begun later
    timings, warnings  what is told besides the answer
    key       of the image in this model, where answers are kept
    held_s    seconds for which the CRF's backpressure held it
    """

    data: bytes
    options: O
    served: Served
    runtime: Runtime
    caller: str
    deadline: float
    timings: Timings = field(default_factory=Timings)
    warnings: list[str] = field(default_factory=list)
    key: tuple[Hashable, ...] | None = None
    held_s: float = 0.0
    _decoded: Decoded | None = None
    _fitted: Fit | None = None
    _ticket: Ticket | None = None
    _before_crf: bool = False

    @property
    def manifest(self) -> Manifest:
        """Of the model that is asked."""
        return self.served.bundle.manifest

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Around all of the image's work: it has a place among those that the server holds."""
        try:
            with self.runtime.admission.ticket(self.caller) as self._ticket:
                yield
        finally:
            if self._before_crf:
                self.runtime.before_crf.leave(self.caller)

    def claim(self, source: tuple[int, int]) -> None:
        """The pixels of an image of this size (H, W) are needed. Raises Busy where they do not fit."""
        assert self._ticket is not None
        self._ticket.set_megapixels(source[0] * source[1] / 1e6)

    async def run(self, work: Callable[[], T], pool: Batcher[Callable[[], Any], Any] | None = None) -> T:
        """Work done in a thread, of the runtime's workers where no pool is named."""
        pool = pool or self.runtime.workers
        done = await pool.submit(work, key=self.caller, priority=self.options.priority, deadline=self.deadline)
        answer: T = done.answer
        return answer

    @property
    def decoded(self) -> Decoded:
        """The image's pixels, from the first call on; for a thread's job."""
        if self._decoded is None:  # no cached_property: before Python 3.12 all images would share its lock
            options = self.options
            with self.timings.measure("decode"):
                self._decoded = decode(self.data, limits=self.runtime.limits, depth=options.depth, page=options.page)
        return self._decoded

    @property
    def fitted(self) -> Fit:
        """Its pixels at the network's size, from the first call on; for a thread's job."""
        if self._fitted is None:
            image = self.decoded.image
            with self.timings.measure("decode"):
                self._fitted = fit(image, self.manifest.input)
        return self._fitted

    async def network_output(self, *, code: bool, before_crf: bool = False) -> NetworkOutput:
        """What the network says of the image, from this pass or an earlier one; with its code, if it is wanted.

        before_crf  the CPU's follows: a pass waits until few enough of the caller's images are as far
        """
        data, cache = self.data, self.runtime.network_outputs
        if cache.on:
            digest = hashlib.sha256(data) if len(data) < _INLINE_BYTES else await self.run(lambda: hashlib.sha256(data))
            self.key = (digest.digest(), self.options.page, self.options.depth, self.served.bundle.digest)
        if before_crf and self.key not in cache:
            await self._hold_back()
        return await cache.get(self.key, partial(self._predict, code or cache.on), retry_on=(Busy, DeadlinePassed))

    async def _hold_back(self) -> None:
        began = time.monotonic()
        longest_s = min(self.runtime.crf_timeout_s, self.deadline - began) / 2
        await self.runtime.before_crf.enter(self.caller, began - self.options.priority, longest_s)
        self._before_crf = True
        self.held_s = time.monotonic() - began

    async def _predict(self, code: bool) -> NetworkOutput:
        fitted = await self.run(lambda: self.fitted)
        self.claim(fitted.source)
        done = await self.served.batcher.predict(
            fitted.pixels,
            code=code and self.manifest.code.assignment == "cosine",
            key=self.caller,
            priority=self.options.priority,
            deadline=self.deadline,
        )
        self.timings.add({"queue": (self.held_s + done.queue_s) * 1000, "encoder": done.run_s * 1000})
        scores, codes = done.answer
        kept = None if codes is None else _alone(codes)
        return NetworkOutput(_alone(scores), kept, fitted.source, fitted.box, self.decoded.depth_rule)


def _alone(array: Array) -> Array:
    """The same values without the rest of their batch, which would stay in memory as long as they do."""
    return array if array.base is None or array.base.nbytes == array.nbytes else array.copy()
