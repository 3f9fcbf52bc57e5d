"""Many images through one model, a few at a time: read, segmented as a request's are, written, told.

Knows nothing of HTTP. What one image's file is to blame for ends with that image; a full disk, and a network that is
gone for good, end the run, which can be gone on with.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from models.errors import TesseraError
from models.io.samples import ImageTooLarge
from service.errors import Busy, NetworkFailed, NetworkNotFinite
from service.formats import registry
from service.formats.registry import Margin, Renderer
from service.formats.result import SegmentationResult
from service.inference import pipeline
from service.inference.large_task import LargeTask
from service.inference.options import Options
from service.inference.runtime import Runtime
from service.inference.task import ImageTask
from service.offline import large_files
from service.offline.outputs import DiskFull, Outputs
from service.offline.sources import Item
from service.repository.served_model import Served

log = logging.getLogger("tessera")

_HELD_BYTES = 512 * 2**20  # of files that were read and are not answered yet; a larger one goes alone
_LONGEST_WAIT_S = 2.0  # until it is looked again whether there is room inside
_TRIES = 4  # of one image, whose network fails
_NETWORK_WAIT_S = 2.0  # for another network to stand ready
_FAILURES = 12  # of the network, one behind the other, after which it is given up


class Todo(NamedTuple):
    """An image to come, and what its outputs are called."""

    item: Item
    stem: str

    def files(self, outputs: Outputs) -> list[str]:
        """What is written of it, below the folder of the outputs."""
        return outputs.files(self.stem, store=self.item.store)


class Part(NamedTuple):
    """A large image under way: windows that are done, and all there are."""

    item: Item
    done: int
    total: int


class Ended(NamedTuple):
    """An image that is done: its answers are written, perhaps with warnings, or it failed for a reason."""

    todo: Todo
    failed: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def item(self) -> Item:
        """The image."""
        return self.todo.item


OnEnd = Callable[[Ended], object]
OnPart = Callable[[Part], object]


def check_formats(formats: Sequence[str], options: Options) -> None:
    """Raises BadOption for a format, or one packed into a zip, that cannot be written here."""
    registry.check([*formats, *(options.render.formats if "zip" in formats else ())])


class Runner:
    """Makes the same of every image.

    formats   of each; what a request for one of them alone would answer
    at_once   images under way
    caller    whose share of the engine they take;  timeout_s  for one image, where the options say nothing
    """

    def __init__(
        self,
        options: Options,
        formats: Sequence[str],
        *,
        runtime: Runtime,
        served: Served,
        outputs: Outputs,
        at_once: int,
        caller: str = "",
        timeout_s: float = 6 * 3600.0,
    ) -> None:
        self._options, self._runtime, self._served = options, runtime, served
        self._formats, self._passes = formats, passes(formats, options)
        self._outputs, self._at_once, self._caller = outputs, at_once, caller
        self._limit_s = timeout_s if options.timeout_ms is None else options.timeout_ms / 1000
        self._room = _Room(_HELD_BYTES)
        self._large = asyncio.Semaphore(1)
        self._failures = 0
        self._stopped = False

    def stop(self) -> None:
        """What is under way is finished; nothing more is begun."""
        self._stopped = True

    async def run(self, todo: Iterable[Todo], on_end: OnEnd, on_part: OnPart = lambda part: None) -> None:
        """All of them, or until `stop`. Cancelled, it drops what is under way. Raises DiskFull, NetworkFailed.

        on_end  told of every image that is done, on the event loop;  on_part  of large ones meanwhile, in a thread
        """
        waiting = iter(todo)
        tasks = [asyncio.create_task(self._work(waiting, on_end, on_part)) for _ in range(self._at_once)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, waiting: Iterator[Todo], on_end: OnEnd, on_part: OnPart) -> None:
        for one in waiting:
            if self._stopped:
                return
            self._outputs.check_room()
            async with self._room.of(one.item.size if one.item.size <= self._runtime.limits.max_bytes else 0):
                ended = await self._one(one, on_part)
            on_end(ended)

    async def _one(self, one: Todo, on_part: OnPart) -> Ended:
        """An image's answers, written. Raises DiskFull, NetworkFailed."""
        try:
            warnings = await self._whole(one, on_part)
        except (DiskFull, NetworkFailed) as error:
            if isinstance(error, NetworkNotFinite):
                return Ended(one, str(error))
            raise
        except TesseraError as error:
            return Ended(one, str(error))
        except OSError as error:
            return Ended(one, (error.strerror or str(error)).lower())
        except MemoryError:
            return Ended(one, "there is not enough memory for it")
        except Exception as error:
            log.exception("%s failed", one.item.source)
            return Ended(one, f"it failed: {type(error).__name__}: {error}")
        return Ended(one, warnings=tuple(warnings))

    async def _whole(self, one: Todo, on_part: OnPart) -> Sequence[str]:
        """An image's answers, written; made from its bytes, or from its file where that is too large to be held."""
        item = one.item
        if item.store:
            return await self._in_windows(one, None, on_part)
        try:
            self._runtime.limits.check_bytes(item.size)
            files, warnings = await self._answers(await asyncio.to_thread(item.read), item.name)
        except ImageTooLarge as error:
            if not await asyncio.to_thread(large_files.takes, item):
                raise
            return await self._in_windows(one, error, on_part)
        await asyncio.to_thread(self._outputs.write, one.stem, files)
        return warnings

    async def _in_windows(self, one: Todo, refused: ImageTooLarge | None, on_part: OnPart) -> Sequence[str]:
        item = one.item
        large_files.check(item, self._options, self._formats, refused)
        (file,) = one.files(self._outputs)
        assert item.path is not None
        deadline = math.inf if self._options.timeout_ms is None else time.monotonic() + self._limit_s
        task = LargeTask(
            item.path,
            self._options,
            self._served,
            self._runtime,
            self._caller,
            deadline,
            progress=lambda done, total: on_part(Part(item, done, total)),
        )
        async with self._large:
            with self._outputs.writing(file) as scratch:
                await task.write(scratch)
        return task.warnings

    async def _answers(self, data: bytes, name: str) -> tuple[dict[str, bytes], list[str]]:
        """An image's answers by format, and what is told besides."""
        options = self._options.of_file(name)
        answers: dict[str, bytes] = {}
        warnings: dict[str, None] = {}
        deadline = time.monotonic() + self._limit_s
        for renderer in self._passes:
            made, told = await self._answer(data, options, renderer, deadline)
            answers |= made
            warnings |= dict.fromkeys(told)
        return answers, list(warnings)

    async def _answer(
        self, data: bytes, options: Options, renderer: Renderer[dict[str, bytes]], deadline: float
    ) -> tuple[dict[str, bytes], list[str]]:
        """What one pass makes of an image: it waits where the engine is full, or gets another network."""
        tries = 0
        while True:
            task = ImageTask(data, options, self._served, self._runtime, self._caller, deadline)
            try:
                answer = await pipeline.segment(task, renderer)
                self._failures = 0
                return answer, task.warnings
            except Busy as error:
                await asyncio.sleep(min(_LONGEST_WAIT_S, error.retry_after_s))
            except NetworkNotFinite:
                raise
            except NetworkFailed:
                tries, self._failures = tries + 1, self._failures + 1
                if tries == _TRIES or self._failures >= _FAILURES:
                    raise
                await asyncio.sleep(_NETWORK_WAIT_S)


def passes(formats: Sequence[str], options: Options) -> list[Renderer[dict[str, bytes]]]:
    """As few renderers of several formats as give each what a request for it alone gives.

    Formats that need margins at the image's size go by themselves: JSON's are taken on the patch grid.
    """
    chosen = [registry.first(format) for format in formats]
    full = [one for one in chosen if one.margin == "full" and not options.confidence]
    groups = [[one for one in chosen if one not in full], full]
    return [_together(group) for group in groups if group]


def _together(group: Sequence[Renderer[bytes]]) -> Renderer[dict[str, bytes]]:
    def render(result: SegmentationResult) -> dict[str, bytes]:
        return {one.name: one.render(result) for one in group}

    margins = {one.margin for one in group}
    margin: Margin = "full" if "full" in margins else "grid" if "grid" in margins else None
    return Renderer(
        render,
        photo=any(one.photo for one in group),
        margin=margin,
        georeference=any(one.georeference for one in group),
        offset=any(one.offset for one in group),
        bytes_per_px=sum(one.bytes_per_px for one in group),
    )


class _Room:
    """For bytes that are held at once; more than there is room for goes alone."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def of(self, count: int) -> AsyncIterator[None]:
        async with self._freed:
            await self._freed.wait_for(lambda: not self._held or self._held + count <= self._most)
            self._held += count
        try:
            yield
        finally:
            self._held -= count
            async with self._freed:
                self._freed.notify_all()
