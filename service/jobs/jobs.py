"""The jobs of one server, as its routes ask for them: begun, looked at, fetched, cancelled, deleted.

Knows nothing of HTTP. Whose a job is, its name says; nobody else's is found.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple
from uuid import uuid4

from service.errors import BadBody, BadOption, BodyTooLarge, Conflict, NotAllowed, NotFound, NotKept, quoted
from service.inference.runtime import Runtime
from service.inference.vocabulary import vocabulary_of
from service.jobs.answers import Answers, parsed
from service.jobs.disk import DiskThreads
from service.jobs.folders import JobFolder, JobFolders
from service.jobs.job import ACTIVE, Job, State
from service.jobs.room import Promise, Room
from service.jobs.runner import Runner
from service.jobs.sources import Source, SourceGone, open_bucket, open_folder, open_upload
from service.jobs.store import Failure, JobStore, new_job
from service.jobs.work import Work
from service.jobs.zip_stream import Entry, ZipStream
from service.metrics import Metrics
from service.offline.runner import check_formats
from service.repository.registry import Registry
from service.roots import Roots, is_bucket
from service.scheduling.background import spawn
from service.settings import Settings

_DAY_S = 86400
_LAST_S = 1.0  # for images under way when a job is cancelled
_THREADS = 4  # for uploads, besides those of images under way


class Wanted(NamedTuple):
    """What is asked of every image: options as they were written, a file in each format, of this model."""

    options: Mapping[str, str]
    formats: Sequence[str]
    model: str


class Upload:
    """A zip on its way to the disk."""

    def __init__(self, job: str, folder: JobFolder, promise: Promise, disk: DiskThreads, most: int) -> None:
        self.job, self.folder = job, folder
        self._promise, self._disk, self._most = promise, disk, most
        self._file: IO[bytes] | None = None
        self.size = 0

    def expect(self, total: int) -> None:
        """So many bytes in all, or more, are to come. Raises BodyTooLarge, NotKept."""
        if total > self._most:
            raise BodyTooLarge(
                f"the zip has more than the {self._most / 2**20:.0f} MiB of one job (TESSERA_MAX_JOB_BYTES); send it in"
                " several, or name a folder on the server"
            )
        self._promise.ask(total)

    async def write(self, data: bytes) -> None:
        """Its next bytes. Raises BodyTooLarge, NotKept."""
        size = self.size + len(data)
        self.expect(size)

        def append() -> None:
            if self._file is None:
                self._file = self.folder.upload.open("xb")
            self._file.write(data)

        with _told():
            await self._disk.run(append)
        self.size = size
        self._promise.wrote(len(data))

    async def whole(self) -> None:
        """Returns once all of it is on the disk. Raises NotKept."""

        def sync() -> None:
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
            else:
                self.folder.upload.touch()

        with _told():
            await self._disk.run(sync)

    def close(self) -> None:
        """Let the file go, whole or not."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


class Jobs:
    """Of one server. `start` has them run, `close` ends that.

    on  whether there are any here
    """

    def __init__(self, settings: Settings, metrics: Metrics, registry: Registry, runtime: Runtime) -> None:
        self._settings, self._registry, self._runtime = settings, registry, runtime
        self.on = settings.job_images > 0
        self._folders = JobFolders(settings.jobs or settings.state / "jobs")
        self._store = JobStore(self._folders.home)
        self._disk = DiskThreads(settings.job_images + _THREADS)
        self._slots = asyncio.Semaphore(max(1, settings.job_images))
        metrics.watch("jobs_free_bytes", "Of the disk that jobs lie on", self._folders.free)
        self._room = Room(self._folders.free, keep_free=settings.job_free_bytes, most=settings.max_key_job_bytes)
        self._roots = Roots.from_settings(settings)
        self._metrics = metrics
        self._runner = Runner(self._store, self._folders, self._disk, metrics, self._work, settings.job_days * _DAY_S)
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Have them run, and what was running go on."""
        if self.on:
            self._running = spawn(self._runner.run(), "jobs")

    def drain(self) -> None:
        """Nothing more is begun: the server ends."""
        self._runner.drain()

    async def close(self) -> None:
        """What is under way ends; it goes on after the next start."""
        await self._runner.close()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._disk.close()
        self._store.close()

    def check(self, wanted: Wanted) -> str:
        """name@digest12 of the model that answers. Raises BadOption, NotFound, Busy."""
        served = self._registry.get(wanted.model or None)
        options = parsed(wanted.options)
        check_formats(wanted.formats, options)
        vocabulary_of(options, served.clusters, served.classes.state)
        return served.bundle.ref

    async def check_room(self, owner: str, size: int | None) -> None:
        """Before a body of so many bytes is asked for: may it become a job? Raises TooMany, BodyTooLarge, NotKept."""
        kept = await self._store.room(owner, self._settings.max_key_jobs)
        with self._room.promise(owner, kept) as promise:
            Upload("", self._folders.of(""), promise, self._disk, self._settings.max_job_bytes).expect(size or 0)

    @asynccontextmanager
    async def upload(self, owner: str, size: int | None) -> AsyncIterator[Upload]:
        """Around an upload, of so many bytes where that is known: what has not become a job leaves nothing behind.

        Raises TooMany, BodyTooLarge, NotKept.
        """
        kept = await self._store.room(owner, self._settings.max_key_jobs)
        id = uuid4().hex
        with self._room.promise(owner, kept) as promise:
            with _told():
                folder, lock = await self._disk.run(lambda: self._folders.begin(id))
            upload = Upload(id, folder, promise, self._disk, self._settings.max_job_bytes)
            try:
                upload.expect(size or 0)
                yield upload
            finally:
                upload.close()
                if await asyncio.shield(self._known(id)) is False:
                    await asyncio.shield(self._disk.run(folder.delete))
                lock.close()

    async def begin(self, upload: Upload, owner: str, wanted: Wanted) -> Job:
        """A job of a zip that came whole. Raises BadBody, BodyTooLarge, BadOption, NotFound, Busy, TooMany, NotKept."""
        model = self.check(wanted)
        await upload.whole()
        source = await self._disk.run(partial(self._open_upload, upload.folder.upload))
        total = len(source.items) + len(source.unusable)
        await self._disk.run(source.close)
        if not total:
            raise BadBody(f"the zip holds no image; {source.left_out} files in it are none by their names")
        return await self._add(upload.job, owner, wanted, model, bytes=upload.size, total=total)

    async def begin_at(self, place: str, owner: str, wanted: Wanted) -> Job:
        """A job of a folder below a root, or of an object store's.

        Raises BadOption, NotFound, NotAllowed, Busy, TooMany, NotKept.
        """
        model = self.check(wanted)
        if is_bucket(place):
            self._roots.bucket(place)
        else:
            await self._disk.run(lambda: self._roots.folder(place))
        return await self._add(uuid4().hex, owner, wanted, model, source=place)

    async def get(self, id: str, owner: str | None) -> Job:
        """A job of an owner; of anybody's for None. Raises NotFound, NotKept."""
        job = await self._store.get(id)
        if job is None or owner not in (None, job.owner):
            raise NotFound(f"no job {quoted(id, 40)} of yours; GET /jobs lists them")
        return self._runner.now(job)

    async def listed(self, owner: str | None, before: int | None, most: int) -> list[Job]:
        """An owner's, or everybody's for None, the latest first."""
        return [self._runner.now(job) for job in await self._store.listed(owner, before, most)]

    async def failures(self, job: Job, after: str, most: int) -> list[Failure]:
        """Of the images that failed, by path."""
        return await self._store.failures(job.id, after, most)

    async def result(self, job: Job) -> ZipStream:
        """What there is of a job that has ended. Raises Conflict for one that has not, NotKept."""
        if job.state in ACTIVE:
            raise Conflict(
                f"this job is {job.state}: {job.done} of {job.total or 'its'} images are done; ask again when it has"
                " ended, or cancel it with DELETE and keep=true for what there is"
            )
        folder = self._folders.of(job.id)
        found = await self._store.outputs(job.id)
        return await self._disk.run(
            lambda: ZipStream(
                [
                    Entry(output.name, output.size, output.crc, partial(folder.open, path, number))
                    for path, outputs in found
                    for number, output in enumerate(outputs)
                ]
            )
        )

    async def end(self, job: Job, *, keep: bool) -> Job:
        """Cancel a job that has not ended; `keep` what there is, or delete all of it. Raises NotKept."""
        job = await self._store.move(job.id, State.CANCELLED) or job
        await self._runner.forget(job.id, _LAST_S if keep else 0.0)
        if keep:
            return await self._store.get(job.id) or job
        await self._store.remove(job.id)
        await self._disk.run(self._folders.of(job.id).delete)
        self._runner.wake()
        return job

    async def _add(self, id: str, owner: str, wanted: Wanted, model: str, **facts: object) -> Job:
        facts = {"source": "", **facts}
        job = new_job(id, owner, model=model, options=dict(wanted.options), formats=tuple(wanted.formats), **facts)
        added = await self._store.add(
            job, most_jobs=self._settings.max_key_jobs, most_bytes=self._settings.max_key_job_bytes
        )
        self._runner.wake()
        return added

    async def _known(self, id: str) -> bool | None:
        """Whether a job is in the store; None where that cannot be said."""
        try:
            return await self._store.get(id) is not None
        except NotKept:
            return None

    def _work(self, job: Job) -> Work:
        return Work(
            job,
            self._folders.of(job.id),
            store=self._store,
            slots=self._slots,
            disk=self._disk,
            open_source=self._open,
            answers=self._answers,
            shortage=self._shortage,
            counted=lambda failed: self._metrics.job_images.labels("failed" if failed else "done").inc(),
        )

    def _answers(self, job: Job) -> Answers:
        return Answers(
            job.options,
            job.formats,
            job.model,
            registry=self._registry,
            runtime=self._runtime,
            timeout_s=self._settings.timeout_s,
            every=self._settings.job_every,
            job=job.id,
        )

    async def _shortage(self, job: Job) -> str | None:
        return self._room.shortage() or self._room.overdrawn(await self._store.kept_bytes(job.owner))

    def _open_upload(self, file: Path) -> Source:
        settings = self._settings
        return open_upload(file, files=settings.max_job_files, total_bytes=settings.max_job_bytes)

    def _open(self, job: Job, folder: JobFolder) -> Source:
        most = self._settings.max_job_files
        if not job.source:
            return self._open_upload(folder.upload)
        try:
            if is_bucket(job.source):
                return open_bucket(self._roots.bucket(job.source), files=most)
            place = self._roots.folder(job.source)
        except (BadOption, NotAllowed, NotFound) as error:
            raise SourceGone(f"its folder cannot be read: {error}; once it can, the job goes on") from None
        return open_folder(place.path, place.root, files=most)


@contextmanager
def _told() -> Iterator[None]:
    """Around writing: a disk that fails is told in words. Raises NotKept."""
    try:
        yield
    except OSError as error:
        raise NotKept(
            f"the upload cannot be written: {error.strerror}; come back, or have the operator make room"
        ) from None
