"""One image's way from its bytes to what the network says of it: decode → fit → batch.

Knows nothing of HTTP, of clusters, of answers. Decoding runs as a job in a thread, so the event loop only waits. What
the network says of an image is kept for a while (`result_cache.py`): other options for the same image begin after it.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from models.deadline import Deadline, DeadlineExceeded
from models.familiarity import Tally
from models.io import tiff_directory, tiff_georeference
from models.io.decode import header_is_bounded, inspect
from models.io.decoder_pool import Reading
from models.io.georeference import Georeference
from models.io.pixels import Pixels
from models.io.samples import Choice, Decoded, Encoded, NoSuchPart
from models.manifest import Manifest
from models.preprocess import Fit, fit
from models.types import WHOLE, Array
from models.windows import MUCH_LARGER, shrinks
from service.errors import Busy, DeadlinePassed
from service.formats.registry import Margin
from service.inference.options import ImageOptions
from service.inference.results import UNKNOWN, Facts, Known, NetworkOutput
from service.inference.runtime import Runtime
from service.inference.windowed import ArrayRows, labelled, layout_of, through_queue
from service.repository.classes import ClassState
from service.repository.served_model import Served
from service.scheduling.admission import Ticket
from service.scheduling.batcher import Batch, Batcher
from service.timings import Timings, at
from service.tracing.traces import ImageTrace

O = TypeVar("O", bound=ImageOptions)  # noqa: E741
T = TypeVar("T")
Tile = Literal["auto", "never", "always"]
_INLINE_BYTES = 2**18  # hashing more than this is worth a thread
_LARGE_BYTES = (
    64 * 2**20
)  # an image whose work holds more is large: it claims them, and goes where small ones do not wait
_SHORT_S = 0.1  # of decoding: what takes longer goes where small images do not wait
_STOPPABLE_S = 0.5  # what takes longer goes where it can be ended
_REFINED_BYTES_PER_PX = 4  # of the answer, that refining holds: labels, and the guide of the fast way
_WINDOWED_BYTES = 5  # of a pixel of an image in windows: itself, whether it is valid, its label
_MARGIN_BYTES = 4  # and its margin
_BYTES_PER_PX = 7  # that a decoder holds at least: the pixels, and a copy that a network's input is made from


@dataclass(eq=False)
class ImageTask(Generic[O]):
    """One image, and what is asked of it. Raises ImageError and its kin for the bytes, Busy, DeadlinePassed.

    data      a file's bytes, or pixels without a file
    caller    whose share of the server the image takes
    deadline  of time.monotonic(); nothing is begun later, and what takes long is ended then
    background  nobody waits for it: it is not kept for being asked again, and its edges have all of its time
    timings, warnings  what is told besides the answer
    told      what is told of the network's answer, as soon as it is there
    digest    of the data, sha256, once it is known
    key       of the image in this model, where answers are kept
    held_s    seconds for which the CRF's backpressure held it
    known    how familiar the image is, once it is known
    orientation  the turn that was taken to show the image upright, once it is known
    error     the name of what kept it from an answer of its own, among several
    """

    data: bytes | Pixels
    options: O
    served: Served
    runtime: Runtime
    caller: str
    deadline: float
    background: bool = False
    told: Callable[[NetworkOutput], object] | None = None
    digest: bytes | None = None
    timings: Timings = field(default_factory=Timings)
    warnings: list[str] = field(default_factory=list)
    key: tuple[Hashable, ...] | None = None
    held_s: float = 0.0
    orientation: int = 1
    known: Known = UNKNOWN
    error: str = ""
    _encoded: Encoded | None = None
    _decoded: Decoded | None = None
    _fitted: Fit | None = None
    _photo: Array | None = None
    _ticket: Ticket | None = None
    _before_crf: bool = False
    _source: tuple[int, int] | None = None
    _own_pass: bool = False
    _batch: Batch | None = None

    def __post_init__(self) -> None:
        self.until = Deadline(self.deadline)

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
            self._encoded = self._decoded = self._fitted = self._photo = None  # the request may go on without them
            if self._before_crf:
                self.runtime.before_crf.leave(self.caller)

    def claim(self, source: tuple[int, int]) -> None:
        """The pixels of an image of this size (H, W) are needed. Raises Busy where they do not fit."""
        assert self._ticket is not None
        self._ticket.set_megapixels(source[0] * source[1] / 1e6)

    async def run(self, work: Callable[[], T], pool: Batcher[Callable[[], Any], Any] | None = None) -> T:
        """Work done in a thread of a pool, the workers' where none is named. Cancelled, what has begun ends soon."""
        pool = pool or self.runtime.workers
        try:
            done = await pool.submit(work, key=self.caller, priority=self.options.priority, deadline=self.deadline)
        except asyncio.CancelledError:
            self.until.cancel()
            raise
        except DeadlineExceeded as error:
            raise DeadlinePassed(str(error)) from None
        started = at(done.started)
        self.timings.waited(started - done.queue_s, started)
        answer: T = done.answer
        return answer

    def traced(self) -> ImageTrace:
        """What is told of the image once it is done."""
        told = {"tessera.k": self.served.clusters.count} | self.options.told()
        if self._source is not None:
            told |= {"tessera.image.height": self._source[0], "tessera.image.width": self._source[1]}
            told["tessera.cache.hit"] = not self._own_pass
        if self._batch is not None:
            told["tessera.batch.size"] = self._batch.size
        return ImageTrace(tuple(self.timings.spans), told, self._batch, self.error)

    @property
    def encoded(self) -> Encoded:
        """What the file's header says of what the network sees, from the first call on; for a thread's job."""
        if self._encoded is None:
            self._encoded = self._inspect(self.options.choice(self.manifest.input))
        return self._encoded

    @property
    def decoded(self) -> Decoded:
        """The pixels that the network's are made of, from the first call on; for a thread's job."""
        if self._decoded is None:  # no cached_property: before Python 3.12 all images would share its lock
            encoded = self.encoded
            with self.timings.measure("decode"):
                self._decoded = encoded.decode()
        return self._decoded

    @property
    def fitted(self) -> Fit:
        """The pixels at the network's size, from the first call on; for a thread's job."""
        if self._fitted is None:
            decoded = self.decoded
            with self.timings.measure("decode"):
                self._fitted = fit(decoded.image, self.manifest.input, decoded.size)
        return self._fitted

    @property
    def photo(self) -> Array:
        """RGB uint8 [H, W, 3] at the picture's full size, from the first call on; for a thread's job.

        Where the network was content with a smaller level of a pyramid, the full size is decoded besides.
        """
        if self._photo is None:
            decoded = self.decoded
            if decoded.image.shape[:2] == decoded.size:
                self._photo = decoded.image
            else:
                encoded = self._inspect(self._whole)
                with self.timings.measure("decode"):
                    self._photo = encoded.decode().image
        return self._photo

    @property
    def georeference(self) -> Georeference | None:
        """Where the picture lies, of those that say it: TIFF's tags are read once more."""
        if isinstance(self.data, Pixels) or self.data[:4] not in tiff_directory.MAGIC:
            return None
        choice = self.options.choice(self.manifest.input)
        return tiff_georeference.read(self.data, page=choice.page, level=choice.level or 0)

    async def network_output(
        self,
        *,
        code: bool,
        photo: bool = False,
        before_crf: bool = False,
        tile: Tile = "never",
        margin: Margin = None,
        taught: ClassState | None = None,
    ) -> NetworkOutput:
        """What the network says of the image, from this pass or an earlier one; with its code, if it is wanted.

        photo       the photo is needed afterwards: its pixels are kept
        before_crf  the CPU's follows: a pass waits until few enough of the caller's images are as far
        tile        whether it is seen in windows;  margin  that labels made of these come with
        taught      the classes that follow: they are told by the code, whatever clusters are told by
        """
        cache = self.runtime.network_outputs
        kept = cache.on and not self.background
        if kept:
            digest, chosen = await self.hashed(), self.options
            self.key = (
                digest, chosen.page, chosen.depth, chosen.bands, chosen.pyramid, self.served.bundle.digest
            )  # fmt: skip
        by_dots = self.manifest.code.assignment == "dot"
        if self.key is not None and taught is not None and by_dots:  # kept apart: the others have no code
            self.key = (*self.key, "code")
        wanted = taught is not None or (not by_dots and (code or kept))
        make: Callable[[], Coroutine[Any, Any, NetworkOutput]] = partial(self._predict, wanted, photo)
        if windows := tile != "never" and await self._in_windows(tile):
            make = partial(self._predict_windows, margin, photo, taught)
            self.key = None if self.key is None else (*self.key, "windows", margin, taught and taught.serial)
        if before_crf and self.key not in cache:
            await self._hold_back()
        began = time.perf_counter()
        output = await (make() if self.background else cache.get(self.key, make, retry_on=(Busy, DeadlinePassed)))
        self._source = output.source
        if not self._own_pass:  # another's, that it waited for, or one that is long over
            self.timings.waited(began, time.perf_counter())
        if self.key is not None and not windows:
            self.runtime.lately.note(self.caller, self.key)
        self.warnings += output.facts.warnings
        self.orientation = output.facts.orientation
        if self.told is not None:
            self.told(output)
        return output

    async def hashed(self) -> bytes:
        """The data's sha256, from the first call on."""
        if self.digest is None:
            data = self.data
            self.digest = _digest(data) if len(data) < _INLINE_BYTES else await self.run(lambda: _digest(data))
        return self.digest

    async def hold_pixels(self, output: NetworkOutput, *, photo: bool, fitted: bool) -> None:
        """Room for the pixels that an answer needs besides what the network says; large ones are decoded here.

        photo, fitted  which of them;  small ones are decoded by the job that needs them

        Raises Busy where they do not fit beside the others'.
        """
        if not (photo or fitted):
            return
        self.claim(output.source)
        if not (output.large or output.slow):
            return
        if fitted and self._fitted is None:
            encoded = await self._header(lambda: self.encoded)
            await self._elsewhere(encoded, lambda: self._prepare(encoded, photo))
        if photo and self._photo is None:
            whole = await self._header(lambda: self._inspect(self._whole))
            await self._elsewhere(whole, lambda: self.photo)
        self._claim_bytes(_REFINED_BYTES_PER_PX * output.source[0] * output.source[1] if fitted else 0)

    async def finish(self, output: NetworkOutput, work: Callable[[], T], bytes_per_px: int) -> T:
        """The image's last job, in a thread: it holds so many bytes for each pixel of the answer."""
        if output.large:
            self._claim_bytes(bytes_per_px * output.source[0] * output.source[1])
        return await self.run(work, self.runtime.large if output.large else None)

    async def _hold_back(self) -> None:
        began = time.monotonic()
        longest_s = min(self.runtime.crf_timeout_s, self.deadline - began) / 2
        await self.runtime.before_crf.enter(self.caller, began - self.options.priority, longest_s)
        self._before_crf = True
        self.held_s = time.monotonic() - began
        self.timings.took("queue", at(began), at(began) + self.held_s)

    async def _predict(self, code: bool, photo: bool) -> NetworkOutput:
        def begin() -> tuple[Encoded, tuple[Fit, Facts] | None]:
            encoded = self.encoded
            at_once = encoded.working_bytes <= _LARGE_BYTES and encoded.seconds <= _SHORT_S
            return encoded, self._prepare(encoded, photo) if at_once else None

        encoded, prepared = await self._header(begin)
        if prepared is None:
            prepared = await self._elsewhere(encoded, lambda: self._prepare(encoded, photo))
        fitted, facts = prepared
        large = max(encoded.working_bytes, _BYTES_PER_PX * fitted.source[0] * fitted.source[1]) > _LARGE_BYTES
        self.claim(fitted.source)
        done = await self.served.batcher.predict(
            fitted.pixels,
            code=code,
            key=self.caller,
            priority=self.options.priority,
            deadline=self.deadline,
        )
        started = at(done.started)
        self.timings.took("queue", started - done.queue_s, started)
        self.timings.took("encoder", started, started + done.run_s)
        self._batch, self._own_pass = done.batch, True
        scores, codes = done.answer
        kept = None if codes is None else _alone(codes)
        slow = encoded.seconds > _SHORT_S
        return NetworkOutput(_alone(scores), kept, fitted.source, fitted.box, facts, large, slow)

    async def _in_windows(self, tile: Tile) -> bool:
        """Whether the image is seen in windows: asked for, or a raster with a place on the earth that one pass would
        show much smaller."""
        data, options = self.data, self.options
        if tile != "auto" or not isinstance(data, bytes) or data[:4] not in tiff_directory.MAGIC:
            return tile == "always"

        def look() -> bool:
            if shrinks(self.encoded.size, self.manifest.input) < MUCH_LARGER:
                return False
            place = tiff_georeference.read(data, page=options.page)
            return place is not None and place.placed

        return await self._header(look)

    async def _predict_windows(self, margin: Margin, photo: bool, taught: ClassState | None) -> NetworkOutput:
        """The image at its own scale; of windows only labels and margins are kept."""
        choice = self.options.choice(self.manifest.input)
        choice = choice if choice.level is not None else self._whole
        encoded = await self._header(lambda: self._inspect(choice))
        height, width = encoded.size
        windows = len(layout_of(encoded.size, self.manifest))

        def decode() -> Decoded:
            self.until.check()
            with self.timings.measure("decode"):
                return encoded.decode()

        decoded = await self._elsewhere(encoded, decode)
        self._own_pass = True
        self._claim_bytes((_WINDOWED_BYTES + (_MARGIN_BYTES if margin == "full" else 0)) * height * width)
        predict = through_queue(
            self.served,
            asyncio.get_running_loop(),
            key=self.caller,
            priority=self.options.priority,
            deadline=self.deadline,
        )

        cells = Tally()

        def work() -> tuple[Array, Array | None]:
            with self.timings.measure("encoder"):
                classifier = None if taught is None else taught.classifier
                return labelled(
                    ArrayRows(decoded),
                    self.manifest,
                    predict,
                    margin=margin,
                    classifier=classifier,
                    tally=cells,
                    until=self.until,
                )

        labels, margins = await self.run(work, self.runtime.windows)
        facts = Facts.of(decoded)
        told = f"seen in {windows} window(s) at its own scale; tile=never shows the network the whole at once, smaller"
        facts = replace(facts, warnings=(*facts.warnings, told))
        self._photo = decoded.image if photo else None
        self._claim_bytes(0)
        nothing = np.empty((len(self.manifest.clusters), 0, 0), np.float32)
        return NetworkOutput(
            nothing,
            None,
            encoded.size,
            WHOLE,
            facts,
            large=True,
            slow=True,
            labels=labels,
            margin=margins,
            serial=0 if taught is None else taught.serial,
            tally=cells,
        )

    def _prepare(self, encoded: Encoded, photo: bool) -> tuple[Fit, Facts]:
        """The network's input, and what the file says; of the pixels only what is still needed is kept."""
        self.until.check()
        with self.timings.measure("decode"):
            if encoded.seconds > _STOPPABLE_S:
                choice, spec = self.options.choice(self.manifest.input), self.manifest.input
                decoded, ready = self._read_apart(encoded, choice, spec=spec, photo=photo)
            else:
                decoded, ready = encoded.decode(), None
            fitted = ready or fit(decoded.image, self.manifest.input, decoded.size)
            facts = Facts.of(decoded)
        self._fitted = fitted
        if photo and decoded.image.shape[:2] == decoded.size:
            self._photo = decoded.image
        return fitted, facts

    async def _header(self, work: Callable[[], T]) -> T:
        """Work that begins with the file's header, where it may take as long as it does."""
        return await self.run(work, None if header_is_bounded(self.data) else self.runtime.decoding)

    async def _elsewhere(self, encoded: Encoded, work: Callable[[], T]) -> T:
        """Work that decodes a large image, or one that takes long, once there is room for the bytes it holds; those of
        a photo that is kept stay claimed."""
        self.claim(encoded.size)
        self._claim_bytes(encoded.working_bytes)
        done = await self.run(work, self.runtime.decoding if encoded.seconds > _STOPPABLE_S else self.runtime.large)
        self._claim_bytes(0)
        return done

    def _read_apart(self, encoded: Encoded, choice: Choice, **wanted: Any) -> Reading:
        assert isinstance(self.data, bytes)  # pixels take no time
        return self.runtime.decoders.read(self.data, self.runtime.limits, choice, encoded, self.until, **wanted)

    def _claim_bytes(self, count: int) -> None:
        """So many are needed, besides those of a photo that is kept. Raises Busy where they do not fit."""
        assert self._ticket is not None
        self._ticket.set_working_bytes(count + (0 if self._photo is None else self._photo.nbytes))

    @property
    def _whole(self) -> Choice:
        """The same image at its full size."""
        return replace(self.options.choice(self.manifest.input), level=0, enough=None)

    def _inspect(self, choice: Choice) -> Encoded:
        try:
            with self.timings.measure("decode"):
                if isinstance(self.data, bytes) and not header_is_bounded(self.data):
                    return self.runtime.decoders.inspect(self.data, self.runtime.limits, choice, self.until)
                found = inspect(self.data, limits=self.runtime.limits, choice=choice)
            if found.seconds <= _STOPPABLE_S:
                return found
            return found._replace(decode=lambda: self._read_apart(found, choice).decoded)
        except NoSuchPart as error:
            if choice.bands and self.options.bands is None:
                name = self.served.bundle.ref
                raise NoSuchPart(f"{error}; {name} was trained on these bands, and bands= chooses others") from None
            raise


def _digest(data: bytes | Pixels) -> bytes:
    return data.digest() if isinstance(data, Pixels) else hashlib.sha256(data).digest()


def _alone(array: Array) -> Array:
    """The same values without the rest of their batch, which would stay in memory as long as they do."""
    return array if array.base is None or array.base.nbytes == array.nbytes else array.copy()
