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
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from service.errors import Busy, DeadlinePassed
from service.scheduling.completions import CompletionQueue
from service.scheduling.fair_queue import Entry, FairQueue

log = logging.getLogger("tessera")

# Why a batch is no larger: it has as many as may be, costs as much as it may, what else waits is of other groups,
# nothing else waits, or a larger one did not fit into memory.
Reason = Literal["full", "budget", "shape", "drained", "memory"]

_MEASURED = 8  # batches without a pause in between, before the time a batch takes counts as known
_LATEST = 16  # of them are looked at
_MARGIN = 2  # a job is refused when the wait is longer than this many times what it allows

J = TypeVar("J")
A = TypeVar("A")


class Completed(NamedTuple, Generic[A]):
    """What a job got, and the seconds it waited and its batch ran."""

    answer: A
    queue_s: float
    run_s: float


@dataclass(eq=False, slots=True)
class _Job(Entry):
    payload: Any
    done: asyncio.Future[Completed[Any]]
    since: float


class Batcher(Generic[J, A]):
    """Worker threads over a fair queue: fair between keys, by priority within one, first in, first out between equals.

    run       answers for the payloads of one batch, in their order; an exception among them is that one's alone, one
              that is raised is everybody's. MemoryError halves a batch of several
    threads   that take batches; they start with the first job
    max_size, max_cost  of a batch: jobs, and the sum of their costs; a single one is never too dear
    foresee   refuse at once what must be late, once it is known how long a batch takes; for one thread
    on_batch  told size and reason of every batch that ran, on the event loop
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.name, self.threads = run, name, threads
        self.max_size, self.max_cost = max_size, max_cost
        self.running = 0
        self._foresee, self._on_batch, self._clock = foresee, on_batch, clock
        self._lock = threading.Lock()  # of all that follows but the wake-ups and the completions
        self._queue: FairQueue[_Job] = FairQueue()
        self._times: deque[float] = deque(maxlen=_LATEST)  # seconds of the latest batches since it was last idle
        self._started: list[threading.Thread] = []
        self._closed = False
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
        job = _Job(key, group, now - priority, deadline, cost, payload, done, now)
        with self._lock:
            if self._closed:
                raise _closed()
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
        with self._lock:
            self._closed = True
            left = self._queue.clear()
        for _ in self._started:
            self._wake.put(False)
        for job in left:
            if not job.done.done():
                job.done.set_exception(_closed())

    async def ended(self) -> None:
        """Returns when nothing runs any more, once `close` was called: then what it needs may be closed."""
        for thread in self._started:
            await asyncio.to_thread(thread.join)

    def _start(self) -> None:
        self._started = [
            threading.Thread(target=self._work, name=f"{self.name} {number}") for number in range(self.threads)
        ]
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

    def _work(self) -> None:
        while self._step() or self._wake.get():
            pass

    def _step(self) -> bool:
        """One batch, where something waits; else False, and the thread counts as idle."""
        with self._lock:
            batch, late = self._queue.take(self._clock(), self.max_size, self.max_cost)
            self.running += len(batch)
            left = self._queue.waiting
            self._idle += not (batch or late)
        if late:
            gone = DeadlinePassed("its turn came too late; allow more with timeout_ms, or come when less is waiting")
            self._answer(late, [gone] * len(late), None)
        if batch:
            self._run(batch, self._reason(batch, left))
        return bool(batch or late)

    def _reason(self, batch: list[_Job], left: int) -> Reason:
        if len(batch) == self.max_size:
            return "full"
        if sum(job.cost for job in batch) + batch[0].cost > self.max_cost:
            return "budget"
        return "shape" if left else "drained"

    def _run(self, batch: list[_Job], reason: Reason) -> None:
        started = self._clock()
        answers: Sequence[Any]
        ran: Reason | None = reason
        try:
            answers = self.run([job.payload for job in batch])
            took = self._clock() - started
        except Exception as error:
            if isinstance(error, MemoryError) and len(batch) > 1:
                log.warning("no memory for a batch of %d images; halving it", len(batch))
                half = len(batch) // 2
                self._run(batch[:half], "memory")
                self._run(batch[half:], "memory")
                return
            answers, ran, took = [error] * len(batch), None, 0.0
        completed = [
            answer if isinstance(answer, Exception) else Completed(answer, started - job.since, took)
            for job, answer in zip(batch, answers, strict=True)
        ]
        with self._lock:
            self.running -= len(batch)
            if ran:
                self._times.append(took)
        self._answer(batch, completed, ran)

    def _answer(self, jobs: list[_Job], answers: Sequence[Completed[Any] | Exception], reason: Reason | None) -> None:
        """Leave answers for the event loop."""
        told = partial(self._on_batch, len(jobs), reason) if reason and self._on_batch else None
        done = [job.done for job in jobs]
        self._completions.put(done[0].get_loop(), list(zip(done, answers, strict=True)), told)


def thread_pool(name: str, threads: int) -> Batcher[Callable[[], Any], Any]:
    """So many threads for functions without arguments: what `submit` is given is called, what it returns the answer."""
    return Batcher(lambda jobs: [jobs[0]()], name=name, threads=threads)


def _closed() -> Busy:
    return Busy("this model is being put away; ask again in a moment", reason="draining")
