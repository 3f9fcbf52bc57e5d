"""Many images through workers on a Ray cluster: batches of paths out, what became of them back.

Knows nothing of pixels. Each batch is tried once. A worker that dies takes along the batches it has: Ray starts
another, and what nobody told of is tried again in the end, each image alone. One that ends its worker then too failed.
"""

import asyncio
import math
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from models.errors import TesseraError, UsageError
from service.offline import ray_cluster
from service.offline.ray_cluster import LOCAL, Pool, Wanted
from service.offline.ray_worker import RUNS, Expected, Numbered, Report, Worker
from service.offline.runner import Ended, Part, Todo
from service.offline.work import Listener, Model, Say, Work

_BATCH = 32  # images; fewer where there are few
_BATCHES = 8  # at least, for each worker: so that all end at about the same time
_ALONE = 2  # times an image is tried alone
_START_S = 300.0  # for the first worker
_LOOK_EVERY_S = 0.2
_END_S = 10.0  # for Ray Data to end


class _Round(NamedTuple):
    """Batches of so many images, so many of them at a worker, and so many of these under way."""

    batch: int
    waiting: int
    runs: int


class _Ender:
    """Ends Ray Data's loop when it is told to: what Ray Data calls at each of its steps. One loop at a time has it.

    A class of the module, not of a run: Ray sends it to its workers, where it means nothing.
    """

    told = threading.Event()

    def before_execution_starts(self, executor: object) -> None:
        """Nothing."""

    def on_execution_step(self, executor: object) -> None:
        """Raises TesseraError where it was told to."""
        if self.told.is_set():
            raise TesseraError("stopped")

    def after_execution_succeeds(self, executor: object) -> None:
        """Nothing."""

    def after_execution_fails(self, executor: object, error: Exception) -> None:
        """Nothing."""


class OnRay:
    """An Executor.

    say      tells people what takes long
    address  of a cluster, as ray.init takes it; LOCAL: one is started here
    """

    def __init__(self, say: Say, wanted: Wanted, address: str = LOCAL) -> None:
        self._say, self._wanted, self._address = say, wanted, address
        self._stopped = _Ender.told
        self._stopped.clear()

    def stop(self) -> str:
        """As Executor says: what is under way is dropped."""
        self._stopped.set()
        return "what is under way is dropped, and done the next time; Ray ends"

    async def run(self, work: Work, model: Model, todo: Sequence[Todo], listener: Listener) -> None:
        """As Executor says. Raises TesseraError where Ray fails."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Report | str | BaseException | None] = asyncio.Queue()

        def tell(one: Report | str | BaseException | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, one)

        thread = threading.Thread(target=self._on_cluster, args=(work, model, todo, tell), name="ray", daemon=True)
        thread.start()
        ready = False
        missing = set(range(len(todo)))
        try:
            while (one := await told.get()) is not None:
                if isinstance(one, str):
                    self._say(one)
                    continue
                if isinstance(one, BaseException):
                    raise one
                if not ready:
                    ready = True
                    listener.ready()
                if one.broken is not None:
                    raise one.broken
                for number, failed, said in one.ended:
                    if number in missing:  # a batch that was lost may have told of some
                        missing.remove(number)
                        listener.ended(Ended(todo[number], failed, said))
                for number, done, total in one.parts:
                    listener.part(Part(todo[number].item, done, total))
        finally:
            self._stopped.set()
            while thread.is_alive():
                await asyncio.sleep(_LOOK_EVERY_S)

    def _on_cluster(
        self,
        work: Work,
        model: Model,
        todo: Sequence[Todo],
        tell: Callable[[Report | str | BaseException | None], None],
    ) -> None:
        """Everything that Ray is asked, by one thread: a cluster that was started ends with the one that started it."""
        local = self._address == LOCAL
        try:
            tell("starting a Ray cluster on this machine" if local else f"joining the Ray cluster at {self._address}")
            with ray_cluster.connected(self._address) as ray:
                pool = ray_cluster.fitting(ray, self._wanted, local=local, stopped=self._stopped, say=tell)
                if pool is not None and not self._stopped.is_set():
                    tell(f"workers: {pool}")
                    self._rounds(ray, pool, work, model, todo, tell)
        except BaseException as error:
            tell(error)
        else:
            tell(None)

    def _rounds(
        self,
        ray: Any,
        pool: Pool,
        work: Work,
        model: Model,
        todo: Sequence[Todo],
        tell: Callable[[Report | str | BaseException | None], None],
    ) -> None:
        expected = Expected(pool.cores, model.bundle.digest, model.said)
        left = dict(enumerate(todo))
        batch = max(1, min(_BATCH, len(left) // (_BATCHES * pool.most)))
        for turn in (_Round(batch, RUNS + 1, RUNS), *[_Round(1, 1, 1)] * _ALONE):
            for report in self._reports(ray, pool, turn, (work, expected), left):
                for number, *_ in report.ended:
                    left.pop(number, None)
                tell(report)
            if self._stopped.is_set() or not left:
                return
            if turn.runs > 1:
                tell(f"a worker died with up to {len(left)} images under way: they are tried again, each alone")
        why = f"the worker process that had it alone died, {_ALONE} times"
        tell(Report([(number, why, ()) for number in left]))

    def _reports(
        self, ray: Any, pool: Pool, turn: _Round, given: tuple[Work, Expected], left: dict[int, Todo]
    ) -> Iterator[Report]:
        """What the workers tell of these images, until they are through, or it is stopped."""
        came: queue.SimpleQueue[Report | BaseException | None] = queue.SimpleQueue()
        dataset = _dataset(ray, pool, turn, given, list(left.items()))

        def read() -> None:
            try:
                for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
                    for report in batch["told"]:
                        came.put(report)
                came.put(None)
            except BaseException as error:
                came.put(error)

        reader = threading.Thread(target=read, daemon=True, name="reports")
        reader.start()
        try:
            yield from self._read(came, pool, ray)
        finally:
            reader.join(_END_S)

    def _read(self, came: "queue.SimpleQueue[Report | BaseException | None]", pool: Pool, ray: Any) -> Iterator[Report]:
        """What comes, until nothing more does, or it is stopped."""
        until = time.monotonic() + _START_S
        begun = False
        while not self._stopped.is_set():
            with suppress(queue.Empty):
                one = came.get(timeout=_LOOK_EVERY_S)
                if one is None or self._stopped.is_set():
                    return
                if isinstance(one, BaseException):
                    raise TesseraError(f"Ray gave up: {ray_cluster.said_by(one)}") from None
                begun = True
                yield one
            if not begun and time.monotonic() > until:
                self._stopped.set()
                raise UsageError(
                    f"no worker has started within {_START_S:.0f} s: each asks for {pool.cores} CPUs and {pool.gpus:g}"
                    f" GPUs, and {ray_cluster.free(ray)} of the cluster are free; wait until others are done, or name"
                    " fewer --workers or less of --gpus"
                )


def _dataset(
    ray: Any, pool: Pool, turn: _Round, given: tuple[Work, Expected], numbered: Sequence[tuple[int, Todo]]
) -> Any:
    """Batches of `todo` → reports, each as soon as it is there."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # a report is not kept back until there are more
    context.max_errored_blocks = -1  # what a worker took along is tried again by us
    context.execution_no_progress_timeout_s = -1  # an image may take hours
    context.custom_execution_callback_classes = [_Ender]
    batches = math.ceil(len(numbered) / turn.batch)
    size = min(pool.most, batches)
    compute = ray.data.ActorPoolStrategy(
        min_size=min(pool.fewest, size),
        max_size=size,
        max_tasks_in_flight_per_actor=turn.waiting,
        max_concurrent_calls_per_actor=turn.runs,
        enable_true_multi_threading=True,
    )
    blocks = ray.data.from_items([{"todo": Numbered(*one)} for one in numbered], override_num_blocks=batches)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of max_task_retries, for which there is no other way to be said yet
        return blocks.map_batches(
            Worker,
            fn_constructor_args=given,
            batch_size=turn.batch,
            batch_format="numpy",
            compute=compute,
            num_cpus=pool.cores,
            num_gpus=pool.gpus or None,
            max_restarts=-1,
            max_task_retries=0,
        )
