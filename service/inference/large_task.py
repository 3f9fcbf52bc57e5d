"""One file too large to be held, and what is asked of it: its windows among everybody's images, its labels to a file
or, where they are few enough, to an answer.

Knows nothing of HTTP.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models.deadline import Deadline, DeadlineExceeded
from models.io.rows import RowSource
from models.io.samples import Choice, Limits
from models.types import Array
from service.errors import BadOption, DeadlinePassed
from service.formats.registry import Renderer
from service.formats.result import SegmentationResult
from service.inference import large, windowed
from service.inference.large import LabelSink, LargeAnswer
from service.inference.options import Options
from service.inference.results import UNKNOWN, Known
from service.inference.runtime import Runtime
from service.inference.vocabulary import Vocabulary, vocabulary_of
from service.inference.windowed import Progress
from service.repository.served_model import Served
from service.timings import Timings
from service.tracing.traces import ImageTrace


@dataclass(eq=False)
class LargeTask:
    """A file that this machine has, never read as a whole. Raises ImageError and its kin, Busy, DeadlinePassed.

    limits   of its pixels;  caller, deadline, timings, warnings  as `ImageTask` has them
    progress  told, by a thread, of the windows that are done and of how many there are
    """

    path: Path
    options: Options
    served: Served
    runtime: Runtime
    caller: str
    deadline: float
    limits: Limits = large.LIMITS
    progress: Progress | None = None
    timings: Timings = field(default_factory=Timings)
    warnings: list[str] = field(default_factory=list)
    orientation: int = 1
    known: Known = UNKNOWN

    def __post_init__(self) -> None:
        self.until = Deadline(self.deadline)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the answer's ids stand for, from the first look on. Raises BadOption for what a model cannot tell
        apart."""
        return vocabulary_of(self.options, self.served.clusters, self.served.classes.state)

    def traced(self) -> ImageTrace:
        """What is told of the file once it is done."""
        return ImageTrace(tuple(self.timings.spans), self.options.told())

    async def write(self, out: Path) -> LargeAnswer:
        """The label map as a file: `large.segment_large` says which. Raises UsageError and OSError besides."""
        choice = large.choice_of(self.options, self.served.bundle.manifest)

        def sink(source: RowSource) -> AbstractContextManager[LabelSink]:
            return self._sink_of(source, out, choice)

        return await self._segment(sink)

    async def stream(self) -> BinaryIO:
        """The label map as GeoTIFF, in an open file that is nowhere else. Raises UsageError and OSError besides."""
        choice = large.choice_of(self.options, self.served.bundle.manifest)
        opened: list[BinaryIO] = []

        @contextmanager
        def sink(source: RowSource) -> Iterator[LabelSink]:
            folder = Path(tempfile.mkdtemp(prefix="tessera-"))
            try:
                out = folder / "labels.tif"
                with self._sink_of(source, out, choice) as to:
                    yield to
                opened.append(out.open("rb", buffering=0))
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        await self._segment(sink)
        return opened[0]

    async def answer(self, renderer: Renderer[bytes]) -> bytes:
        """The label map as a format has it, of a picture no larger than those that are sent.

        Raises BadOption where the format, or an option, needs the whole picture.
        """
        options, served = self.options, self.served
        if renderer.photo or renderer.margin == "full" or options.confidence:
            raise BadOption(
                f"format: {renderer.name} needs the whole picture in memory, and this file is read in windows; ask for"
                " png, npy, json or geotiff"
            )
        kept = _InMemory()
        found = await self._segment(kept.sink, margin=renderer.margin is not None, most_mpx=self.runtime.limits.max_mpx)
        named = sum(area.pixels for area in found.areas)
        place = None
        if renderer.georeference:
            choice = large.choice_of(options, served.bundle.manifest)
            place = await asyncio.to_thread(large.georeference_of, self.path, choice)
        result = SegmentationResult(
            model=served.name,
            digest=served.bundle.digest[:12],
            k=self.vocabulary.k,
            image=None,
            labels=kept.labels,
            table=self.vocabulary.table,
            areas=found.areas,
            style=self.vocabulary.style,
            georeference=place,
            valid_fraction=found.valid_fraction,
            unknown_fraction=max(0.0, found.valid_fraction - named / kept.labels.size),
            depth_rule=found.depth_rule,
            pages=found.pages,
            familiarity=self.known.familiarity,
            familiar=self.known.familiar,
            warnings=self.warnings,
            timings=self.timings,
            options=options.render,
            of=self.vocabulary.of,
        )
        content: bytes = await self._run(lambda: renderer.render(result))
        return content

    def _sink_of(self, source: RowSource, out: Path, choice: Choice) -> AbstractContextManager[LabelSink]:
        return large.sink_of(source, self.path, out, choice, self.vocabulary.style, self.options.id_offset)

    async def _segment(
        self,
        sink: Callable[[RowSource], AbstractContextManager[LabelSink]],
        *,
        margin: bool = False,
        most_mpx: float | None = None,
    ) -> LargeAnswer:
        """All of it, in a thread; `most_mpx`: of a picture whose labels are to be held."""
        options, served, manifest = self.options, self.served, self.served.bundle.manifest
        if options.refine:
            raise BadOption("crf: edges are not refined in windows; leave it out")
        if options.tile == "never":
            raise BadOption("tile: this file is too large for one pass of the network; leave tile=never out")
        if options.confidence:
            raise BadOption("confidence: the margins of a file that is read in windows are not kept; leave it out")
        words = self.vocabulary
        choice = large.choice_of(options, manifest)
        loop = asyncio.get_running_loop()
        predict = windowed.through_queue(
            served, loop, key=self.caller, priority=options.priority, deadline=self.deadline
        )
        with self.runtime.admission.ticket(self.caller) as ticket:

            async def claim(count: int) -> None:
                ticket.set_working_bytes(count)

            def work() -> LargeAnswer:
                with large.open_rows(self.path, choice, self.limits) as source, self.timings.measure("encoder"):
                    height, width = source.size
                    if most_mpx is not None and height * width > most_mpx * 1e6:
                        raise BadOption(
                            f"format: a label map of {width}×{height} is answered as format=geotiff only; others are,"
                            f" up to {most_mpx:g} Mpx (TESSERA_MAX_MPX)"
                        )
                    room = windowed.held_bytes(source, manifest, code=margin or words.taught is not None)
                    asyncio.run_coroutine_threadsafe(claim(room), loop).result()
                    return large.write_labels(
                        source,
                        partial(sink, source),
                        manifest,
                        predict,
                        options,
                        table=words.table,
                        classifier=None if words.taught is None else words.taught.classifier,
                        margin=margin,
                        until=self.until,
                        progress=self.progress,
                    )

            found: LargeAnswer = await self._run(work)
        self.warnings += found.warnings
        if (doubt := served.clusters.doubt(options.k)) is not None:
            self.warnings.append(doubt)
        self.known = Known.of(found.tally, manifest)
        sure = found.tally.mean_margin(len(manifest.clusters))
        clusters = found.areas if words.taught is None else []  # classes are not what is counted
        self.runtime.metrics.segmented(served.name, clusters, self.timings, refined=None, margin=sure)
        return found

    async def _run(self, work: Callable[[], Any]) -> Any:
        pool, priority = self.runtime.windows, self.options.priority
        try:
            done = await pool.submit(work, key=self.caller, priority=priority, deadline=self.deadline)
        except asyncio.CancelledError:
            self.until.cancel()
            raise
        except DeadlineExceeded as error:
            raise DeadlinePassed(str(error)) from None
        return done.answer


class _InMemory:
    """Labels that are held, uint8 [H, W]."""

    labels: Array

    @contextmanager
    def sink(self, source: RowSource) -> Iterator["_InMemory"]:
        """Of a picture."""
        self.labels = np.empty(source.size, np.uint8)
        yield self

    def write(self, top: int, left: int, labels: Array) -> None:
        """Those of a window [h, w], whose upper left pixel is (top, left)."""
        self.labels[top : top + labels.shape[0], left : left + labels.shape[1]] = labels
