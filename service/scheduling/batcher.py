"""The batcher, the one kind of worker here: a fair queue of jobs, and threads that run them in batches.

What a thread takes next it takes by itself, so that it never waits for the event loop while something is queued;
answers go back with one wake-up of the loop for as many as are ready. A batch is never made to wait for company: what
is queued when a thread is free goes.

Knows nothing of HTTP, of images, of networks: payloads in, answers out. How many may wait is bounded at the door
(`admission.py`), who goes first is decided in `fair_queue.py`.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from service.errors import Busy, DeadlinePassed
from service.request_context import RequestContext, current
from service.scheduling.background import Patience, WorkLost, as_exception
from service.scheduling.completions import CompletionQueue
from service.scheduling.fair_queue import Entry, FairQueue

log = logging.getLogger("tessera")

# Why a batch is no larger: it has as many as may be, costs as much as it may, what else waits is of other groups,
# nothing else waits, or a larger one did not fit into memory.
Reason = Literal["full", "budget", "shape", "drained", "memory"]

_MEASURED = 8  # batches without a pause in between, before the time a batch takes counts as known
_LATEST = 16  # of them are looked at
_BREATH_S = 0.1  # after a failure of the batcher's own, which may come again at once
_MARGIN = 2  # a job is refused when the wait is longer than this many times what it allows

J = TypeVar("J")
A = TypeVar("A")


@dataclass(eq=False, slots=True)
class Batch:
    """Several jobs that ran at once.

    size  of them;  requests  whom they were for
    """

    size: int
    requests: tuple[RequestContext, ...]


class Completed(NamedTuple, Generic[A]):
    """What a job got, and the seconds it waited and its batch ran.

    started  when it did, by the batcher's clock;  batch  the others it ran with; None: it was alone
    """

    answer: A
    queue_s: float
    run_s: float
    started: float
    batch: Batch | None


@dataclass(eq=False, slots=True)
class _Job(Entry):
    payload: Any
    done: asyncio.Future[Completed[Any]]
    since: float
    requests: tuple[RequestContext, ...]


class _Worker(threading.Thread):
    """One of a batcher's threads. The end of the process does not wait for it.

    jobs  of its batch, those without an answer yet;  batch  the same from one batch's start to its end, told by `is`
    """

    def __init__(self, work: Callable[["_Worker"], object], name: str) -> None:
        super().__init__(target=work, args=(self,), name=name, daemon=True)
        self.jobs: list[_Job] = []
        self.batch: list[_Job] | None = None
        self.patience = Patience()


class Batcher(Generic[J, A]):
    """Worker threads over a fair queue: fair between keys, by priority within one, first in, first out between equals.

    run       answers for the payloads of one batch, in their order; an exception among them is that one's alone, one
              that is raised is everybody's. MemoryError halves a batch of several
    threads   that take batches; they start with the first job, and one that dies is replaced
    max_size, max_cost  of a batch: jobs, and the sum of their costs; a single one is never too dear
    foresee   refuse at once what must be late, once it is known how long a batch takes; for one thread
    on_batch  told size and reason of every batch that ran, on the event loop
    longest_s  of one batch, before its thread counts as hanging (`tend`)
    every     the background's turn is one of so many while others wait
    clock     seconds; the deadlines given to `submit` are times of this clock

    running   jobs that are being run now
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], Sequence[A | Exception]],
        *,
        name: str,
        threads: int = 1,
        max_size: int = 1,
        max_cost: float = math.inf,
        foresee: bool = False,
        on_batch: Callable[[int, Reason], object] | None = None,
        longest_s: float = math.inf,
        every: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.name, self.threads, self.longest_s = run, name, threads, longest_s
        self.max_size, self.max_cost = max_size, max_cost
        self.running = 0
        self._foresee, self._on_batch, self._clock = foresee, on_batch, clock
        self._lock = threading.Lock()  # of all that follows but the wake-ups and the completions
        self._queue: FairQueue[_Job] = FairQueue(every)
        self._times: deque[float] = deque(maxlen=_LATEST)  # seconds of the latest batches since it was last idle
        self._started: list[_Worker] = []
        self._lost: list[_Worker] = []  # that hang, each replaced by another
        self._refuse: Callable[[], Exception] | None = None  # once it is closed
        self._idle = 0  # threads that wait until they are woken
        self._wake: SimpleQueue[bool] = SimpleQueue()  # for one of them, a job has come; False ends a thread
        self._completions: CompletionQueue[Completed[Any]] = CompletionQueue()

    @property
    def waiting(self) -> int:
        """Jobs that no batch has taken yet."""
        return self._queue.waiting

    @property
    def alone(self) -> bool:
        """Asked by a job that runs: whether it is the only one here."""
        return self.running == 1 and not self._queue.waiting

    async def submit(
        self,
        payload: J,
        *,
        group: Hashable = None,
        cost: float = 0,
        key: str = "",
        priority: float = 0,
        deadline: float = math.inf,
    ) -> Completed[A]:
        """The answer for one payload. Cancelled while it waits, it never runs.

        group     only equal ones share a batch
        key       whose it is: keys take turns;  priority  of this key's, higher goes first; a step outweighs one
                  second of waiting
        deadline  in the batcher's clock: from then on it is not run

        Raises DeadlinePassed when its turn came too late; Busy when that is plain to see beforehand, or when the
        batcher is closed; whatever `run` raised for its batch.
        """
        now = self._clock()
        done: asyncio.Future[Completed[A]] = asyncio.get_running_loop().create_future()
        job = _Job(key, group, now - priority, deadline, cost, payload, done, now, current.get())
        with self._lock:
            if self._refuse is not None:
                raise self._refuse()
            if not (self.running or self._queue.waiting):
                self._times.clear()  # it has paused
            elif self._foresee and self._queue.waiting:
                self._check(job, now)
            self._queue.add(job)
            if not self._started:
                self._start()
            wake = self._idle > 0
            self._idle -= wake
        if wake:  # only now: who wakes wants the lock
            self._wake.put(True)
        try:
            return await done
        except asyncio.CancelledError:
            with self._lock:
                if self._queue.withdraw(job):
                    job.payload = None  # the queue may keep the entry for a while
            raise

    def close(self) -> None:
        """What runs is still answered, what waits is refused with Busy. Returns at once; on the event loop."""
        self._close(_closed)

    def abandon(self, ran: Callable[[], Exception], waits: Callable[[], Exception]) -> None:
        """Close, and wait for nothing: what runs gets the one error, what waits and what still comes the other."""
        running = [job for worker in self._started for job in worker.jobs]
        self._close(waits)
        self._lost, self._started = self._started, []
        _refuse(running, ran)

    async def ended(self) -> None:
        """Returns when nothing runs any more, once `close` was called: then what it needs may be closed.

        What hangs and was given up is not waited for.
        """
        pause_s = 0.0005
        while any(worker.is_alive() for worker in self._started):  # no join: it would keep a thread that may hang, too
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.05)

    def tend(self, elapsed_s: float, lost: Callable[[str], Exception] = WorkLost) -> bool:
        """Whether threads were found dead or hanging: what they ran is answered with an error, others take their place.

        elapsed_s  since the last call;  lost  what makes that error of a sentence

        A batch that takes longer than `longest_s` hangs. No more threads are given up than there are at once: they
        still take memory and processor time, and end by themselves if ever they return. On the event loop.
        """
        self._lost = [worker for worker in self._lost if worker.is_alive()]
        troubled = False
        for number, worker in enumerate(self._started):
            took = worker.patience.look(worker.batch, elapsed_s)
            if not worker.is_alive():
                if self._refuse is not None and not worker.jobs:
                    continue  # it was let go
                log.error("a thread of %r has died; another one takes its place", self.name)
                what = f"a thread of {self.name!r} died"
            elif took > self.longest_s and len(self._lost) < self.threads:
                log.error("a thread of %r has run one batch for %.0f s; another takes its place", self.name, took)
                self._lost.append(worker)
                what = f"a thread of {self.name!r} did not come back within {took:.0f} s"
            else:
                continue
            troubled = True
            with self._lock:
                jobs, worker.jobs = worker.jobs, []
                self.running -= len(jobs)
                self._started[number] = _Worker(self._work, worker.name)
            _refuse(jobs, partial(lost, what))
            self._started[number].start()
        return troubled

    def _close(self, refuse: Callable[[], Exception]) -> None:
        with self._lock:
            self._refuse = self._refuse or refuse
            left = self._queue.clear()
        for _ in self._started:
            self._wake.put(False)
        _refuse(left, refuse)

    def _start(self) -> None:
        self._started = [_Worker(self._work, f"{self.name} {number}") for number in range(self.threads)]
        for thread in self._started:
            thread.start()

    def _check(self, job: _Job, now: float) -> None:
        """Raises Busy when the wait is certain to be longer than the job allows.

        Certain: as if every batch were full and as quick as the quickest of the latest, of those ahead whom it cannot
        overtake.
        """
        if len(self._times) < _MEASURED:
            return
        quickest = min(self._times)
        allowed = _MARGIN * (job.deadline - now)
        if self._queue.waiting // self.max_size * quickest <= allowed:
            return
        group = None if self.max_size == 1 else job.group
        wait = self._queue.ahead(job.key, job.rank, group) // self.max_size * quickest
        if wait > allowed:
            raise Busy(
                f"{self._queue.waiting} images are waiting, about {wait:.1f} s of work, more than this one's time"
                " allows; allow more with timeout_ms, or come back later",
                reason="deadline",
                retry_after_s=min(60, math.ceil(wait)),
            )

    def _work(self, worker: _Worker) -> None:
        while worker in self._started:  # else it hung, and another has its place
            try:
                if not (self._step(worker) or self._wake.get()):
                    return
            except BaseException as error:  # of the batcher's own: what `run` raises is answered
                log.critical("%s failed; its thread goes on", worker.name, exc_info=error)
                self._answer(worker.jobs, [as_exception(error)] * len(worker.jobs), None)
                with self._lock:
                    self.running -= len(worker.jobs)
                    worker.jobs, worker.batch = [], None
                time.sleep(_BREATH_S)

    def _step(self, worker: _Worker) -> bool:
        """One batch, where something waits; else False, and the thread counts as idle."""
        with self._lock:
            batch, late = self._queue.take(self._clock(), self.max_size, self.max_cost)
            self.running += len(batch)
            worker.jobs = worker.batch = batch
            left = self._queue.waiting
            self._idle += not (batch or late)
        if late:
            gone = DeadlinePassed("its turn came too late; allow more with timeout_ms, or come when less is waiting")
            self._answer(late, [gone] * len(late), None)
        if batch:
            self._run(worker, batch, self._reason(batch, left))
            current.set(())
        worker.batch = None
        return bool(batch or late)

    def _reason(self, batch: list[_Job], left: int) -> Reason:
        if len(batch) == self.max_size:
            return "full"
        if sum(job.cost for job in batch) + batch[0].cost > self.max_cost:
            return "budget"
        return "shape" if left else "drained"

    def _run(self, worker: _Worker, batch: list[_Job], reason: Reason) -> None:
        together: Batch | None = None
        requests = batch[0].requests
        if len(batch) > 1:
            requests = tuple({id(request): request for job in batch for request in job.requests}.values())
            together = Batch(len(batch), requests)
        current.set(requests)  # this thread's, until its next batch
        started = self._clock()
        answers: Sequence[Any]
        ran: Reason | None = reason
        try:
            answers = self.run([job.payload for job in batch])
            if len(answers) != len(batch):
                raise WorkLost(f"{self.name!r} gave {len(answers)} answers for {len(batch)}")
            took = self._clock() - started
        except BaseException as error:  # whatever a library raises: it is an answer, and the thread goes on
            if isinstance(error, MemoryError) and len(batch) > 1:
                log.warning("no memory for a batch of %d images; halving it", len(batch))
                half = len(batch) // 2
                self._run(worker, batch[:half], "memory")
                self._run(worker, batch[half:], "memory")
                return
            answers, ran, took = [as_exception(error)] * len(batch), None, 0.0
        completed = [
            answer if isinstance(answer, Exception) else Completed(answer, started - job.since, took, started, together)
            for job, answer in zip(batch, answers, strict=True)
        ]
        with self._lock:
            if worker.jobs:  # else it was given up, and its jobs are answered
                self.running -= len(batch)
                worker.jobs = worker.jobs[len(batch) :]
            if ran:
                self._times.append(took)
        self._answer(batch, completed, ran)

    def _answer(self, jobs: list[_Job], answers: Sequence[Completed[Any] | Exception], reason: Reason | None) -> None:
        """Leave answers for the event loop."""
        if not jobs:
            return
        told = partial(self._on_batch, len(jobs), reason) if reason and self._on_batch else None
        done = [job.done for job in jobs]
        self._completions.put(done[0].get_loop(), list(zip(done, answers, strict=True)), told)


def thread_pool(
    name: str, threads: int, longest_s: float = math.inf, every: int = 10
) -> Batcher[Callable[[], Any], Any]:
    """So many threads for functions without arguments: what `submit` is given is called, what it returns the answer."""
    return Batcher(lambda jobs: [jobs[0]()], name=name, threads=threads, longest_s=longest_s, every=every)


def _refuse(jobs: Iterable[_Job], error: Callable[[], Exception]) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(error())


def _closed() -> Busy:
    return Busy("this model is being put away; ask again in a moment", reason="draining")
