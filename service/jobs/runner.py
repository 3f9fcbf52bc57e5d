"""The runner: of each key the oldest job that can go on, so many images at once of all of them together.

Of several servers on one folder one runs the jobs; when it ends another does. It also puts away what has been kept long
enough, and what no job owns.

Knows nothing of HTTP, of pixels.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from service.errors import NotKept
from service.jobs.disk import DiskThreads
from service.jobs.folders import JobFolders
from service.jobs.job import Job, State
from service.jobs.store import JobStore
from service.jobs.work import Work
from service.metrics import Metrics

log = logging.getLogger("tessera")

_LOOK_S = 1.0  # for jobs that another server was asked for
_TIDY_S = 600.0
_LAST_S = 1.5  # at a server's end, for what is under way


class Runner:
    """Of one folder of jobs.

    work_of    makes the work of a job
    longest_s  that a finished job is kept while servers run
    """

    def __init__(
        self,
        store: JobStore,
        folders: JobFolders,
        disk: DiskThreads,
        metrics: Metrics,
        work_of: Callable[[Job], Work],
        longest_s: float,
    ) -> None:
        self._store, self._folders, self._disk, self._metrics = store, folders, disk, metrics
        self._work_of, self._longest_s = work_of, longest_s
        self._works: dict[str, Work] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._draining = False
        self._told: str | None = None
        self._tidied: float | None = None

    def wake(self) -> None:
        """There is a new job, or one is not wanted any more."""
        self._woken.set()

    def now(self, job: Job) -> Job:
        """A job as it is here, where it runs here."""
        work = self._works.get(job.id)
        return work.job if work is not None else job

    async def forget(self, id: str, last_s: float) -> None:
        """Returns once nothing of a job is under way here any more; what is has so many seconds to be finished."""
        if (task := self._tasks.get(id)) is not None:
            self._works[id].stop()
            await asyncio.wait([task], timeout=last_s)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._works.pop(id, None)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                if not self._draining and await self._disk.run(self._folders.take):
                    await self._tidy()
                    await self._start()
                self._tell(None)
            except (NotKept, OSError) as error:
                self._tell(str(error))
            except Exception:
                log.exception("jobs cannot be looked after")
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._woken.wait()
            self._woken.clear()

    def drain(self) -> None:
        """Nothing more is begun; what is under way is finished."""
        self._draining = True
        for work in self._works.values():
            work.stop()

    async def close(self) -> None:
        """The end of all that runs here. It goes on where a server starts on this folder."""
        self.drain()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=_LAST_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._folders.give_back()

    async def _start(self) -> None:
        active = await self._store.active()
        ids = {job.id for job in active}
        for id in [id for id in self._works if id not in ids and id not in self._tasks]:
            del self._works[id]
        running = {self._works[id].job.owner for id in self._tasks}
        for job in active:
            if job.owner in running or self._draining:
                continue
            paused = self._works.get(job.id)
            if paused is not None and time.monotonic() < paused.retry_at:
                continue
            running.add(job.owner)
            self._begin(job)
        for state in State:
            self._metrics.jobs.labels(state).set(0)
        for name, count in (await self._store.counts()).items():
            self._metrics.jobs.labels(name).set(count)

    def _begin(self, job: Job) -> None:
        work = self._works[job.id] = self._work_of(job)
        task = self._tasks[job.id] = asyncio.ensure_future(work.run())

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[job.id]
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("job %s: its work ended: %s", job.id, error, exc_info=error)
            if work.job.state is not State.PAUSED and self._works.get(job.id) is work:
                del self._works[job.id]
            self.wake()

        task.add_done_callback(ended)

    async def _tidy(self) -> None:
        """Put away what is old, and what is nobody's. Raises NotKept, OSError."""
        now = time.monotonic()
        if self._tidied is not None and now - self._tidied < _TIDY_S:
            return
        elapsed_s = 0.0 if self._tidied is None else now - self._tidied
        for id in await self._store.age(elapsed_s, self._longest_s):
            await self._store.remove(id)
            log.info("job %s was kept for as long as jobs are (TESSERA_JOB_DAYS), and is deleted", id)
        folders = await self._disk.run(self._folders.unfilled)
        for id in set(folders) - await self._store.ids():
            await self._disk.run(self._folders.of(id).delete)
        self._tidied = now

    def _tell(self, trouble: str | None) -> None:
        if trouble != self._told and trouble is not None:
            log.error("jobs do not go on: %s", trouble)
        self._told = trouble
