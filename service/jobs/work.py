"""One job that runs: its images one after the other, what becomes of each written down, once.

Knows nothing of HTTP, of other jobs. An image counts once its files are on the disk and the store says so; whatever
ends the process before that, it is done again, to the same bytes.
"""

import asyncio
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from models.errors import TesseraError
from service.errors import BadBody, NotFound, NotKept
from service.formats import registry
from service.jobs.answers import Answers
from service.jobs.disk import DiskThreads
from service.jobs.folders import JobFolder
from service.jobs.job import Job, Outcome, State
from service.jobs.sources import Source, SourceGone
from service.jobs.store import JobStore
from service.offline.outputs import Outputs
from service.offline.sources import Item
from service.request_context import RequestContext, current

log = logging.getLogger("tessera")

_FLUSH_S = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LATER_S = 5.0  # until what is paused is tried again


class Paused(TesseraError):
    """The job cannot go on now; says what would help."""


class Work:
    """A job from its first image that is left to its last.

    slots     of all jobs together: an image under way has one
    disk      runs what blocks
    shortage  tells why nothing more may be kept, in a sentence; None: it may
    counted   told of every image that is settled, whether it failed

    retry_at  of time.monotonic(): once it is paused, when to look again
    """

    def __init__(
        self,
        job: Job,
        folder: JobFolder,
        *,
        store: JobStore,
        slots: asyncio.Semaphore,
        disk: DiskThreads,
        open_source: Callable[[Job, JobFolder], Source],
        answers: Callable[[Job], Answers],
        shortage: Callable[[Job], Awaitable[str | None]],
        counted: Callable[[bool], object],
    ) -> None:
        self.job = job
        self._folder, self._store, self._slots, self._in_thread = folder, store, slots, disk.run
        self._open, self._make_answers, self._shortage, self._counted = open_source, answers, shortage, counted
        self._stopped = False
        self._why: Exception | None = None
        self._outcomes: list[Outcome] = []
        self._flushing = asyncio.Lock()
        self._since = time.monotonic()
        self.retry_at = 0.0

    def stop(self) -> None:
        """What is under way is finished; nothing more is begun."""
        self._stopped = True

    async def run(self) -> None:
        """To its end, or until `stop`; cancelled, what is under way is dropped. Told in the store."""
        current.set((RequestContext(job_id=self.job.id),))  # of this task
        try:
            await self._go()
        except (Paused, SourceGone, NotKept) as error:
            await self._pause(str(error))
        except TesseraError as error:
            await self._move(State.FAILED, str(error))
        except OSError as error:
            await self._pause(f"its files cannot be written: {error.strerror}; once they can, it goes on")
        except Exception:
            log.exception("job %s failed", self.job.id)
            await self._move(State.FAILED, "the server failed; its log tells why, under this job's id")

    async def _go(self) -> None:
        job = self.job
        answers = self._make_answers(job)
        if short := await self._shortage(job):
            raise Paused(short)
        source = await self._in_thread(lambda: self._open(job, self._folder))
        try:
            settled = await self._store.settled(job.id)
            names = settled.keys() | {item.name for item in source.items} | {name for name, _ in source.unusable}
            if not names:
                raise BadBody("there is no image in it: of files by their names, and below folders, none is one")
            job = await self._move(State.RUNNING, total=len(names))
            for name, reason in source.unusable:
                if name not in settled:
                    self._outcomes.append(Outcome(name, reason=reason))
            stems = _stems(source.items, job.formats, settled)
            self._since = time.monotonic()
            flushing = asyncio.ensure_future(self._flush_now_and_then())
            try:
                await self._all([item for item in source.items if item.name not in settled], stems, answers)
            finally:
                flushing.cancel()
                await asyncio.gather(flushing, return_exceptions=True)
        finally:
            await self._in_thread(source.close)
        await self._flush()
        if self._why is not None:
            raise self._why
        if not self._stopped:
            await self._move(State.DONE)

    async def _all(self, items: Sequence[Item], stems: dict[str, str], answers: Answers) -> None:
        under_way: set[asyncio.Task[None]] = set()
        try:
            for item in items:
                await self._slots.acquire()
                if self._stopped or self._why is not None:
                    self._slots.release()
                    break
                task = asyncio.ensure_future(self._one(item, stems[item.name], answers))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                task.add_done_callback(lambda _: self._slots.release())
            while under_way:
                await asyncio.wait(under_way)
        finally:
            for task in list(under_way):
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _one(self, item: Item, stem: str, answers: Answers) -> None:
        try:
            if item.store:
                raise BadBody("a Zarr store is no file of a job; `tessera segment` reads and writes them")
            answers.check(item.size)
            data = await self._in_thread(item.read)
            made = await answers.of(data, item.name, lambda: self._stopped or self._why is not None)
            if made is None:
                return
            files = [(stem + registry.suffix(format), made[format]) for format in self.job.formats]
            outputs = await self._in_thread(lambda: self._folder.write(item.name, files))
            self._outcomes.append(Outcome(item.name, outputs, stem=stem))
        except NotFound:
            self._why = Paused(
                f"{self.job.model} is not served any more; load it again and the job goes on, or delete the job and"
                " begin one with another model"
            )
        except OSError as error:
            if error.errno in _FULL:
                self._why = Paused("the disk is full; once there is room, the job goes on")
            else:
                self._outcomes.append(Outcome(item.name, reason=(error.strerror or type(error).__name__).lower()))
        except TesseraError as error:
            self._outcomes.append(Outcome(item.name, reason=str(error)))
        except MemoryError:
            self._outcomes.append(Outcome(item.name, reason="there is not enough memory for it"))
        except Exception:
            log.exception("job %s: %s failed", self.job.id, item.name)
            self._outcomes.append(
                Outcome(item.name, reason="the server failed; its log tells why, under this job's id")
            )

    async def _flush_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            try:
                await self._flush()
                if short := await self._shortage(self.job):
                    raise Paused(short)
            except (Paused, NotKept, OSError) as error:
                self._why = self._why or error

    async def _flush(self) -> None:
        """What became of images, onto the disk and into the store. Raises NotKept, OSError: it is tried again."""
        async with self._flushing:
            outcomes, now = self._outcomes[:], time.monotonic()
            written = [(outcome.path, len(outcome.outputs)) for outcome in outcomes if outcome.outputs]
            await self._in_thread(lambda: self._folder.sync(written))
            job = await self._store.record(self.job.id, outcomes, now - self._since)
            self._since = now
            del self._outcomes[: len(outcomes)]
            for outcome in outcomes:
                self._counted(outcome.reason is not None)
            if job is None or job.state is not State.RUNNING:  # deleted or cancelled, also by another server
                self._stopped = True
            self.job = job or self.job

    async def _pause(self, note: str) -> None:
        self.retry_at = time.monotonic() + _LATER_S
        if self.job.note != note:
            log.warning("job %s pauses: %s", self.job.id, note)
        await self._move(State.PAUSED, note)

    async def _move(self, state: State, note: str = "", *, total: int | None = None) -> Job:
        """To another state, unless it was cancelled or deleted; where that cannot be kept, for those who ask here."""
        try:
            moved = await self._store.move(self.job.id, state, note, total=total)
        except NotKept as error:
            if state is State.RUNNING:
                raise
            moved = replace(self.job, state=State.PAUSED, note=note or str(error))
            self.retry_at = time.monotonic() + _LATER_S
        if moved is None or moved.state is not state:
            self._stopped = True
        self.job = moved or self.job
        return self.job


def _stems(items: Sequence[Item], formats: Sequence[str], settled: Mapping[str, str]) -> dict[str, str]:
    """What each image's files are called in the result, without a format's suffix; those of earlier ones stay so."""
    known = {name: stem for name, stem in settled.items() if stem}
    named = [replace(item, source=item.name, path=None) for item in items]
    return dict(zip((item.name for item in items), Outputs(Path(), formats).stems(named, known), strict=True))
