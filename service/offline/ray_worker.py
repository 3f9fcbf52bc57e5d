"""One worker on Ray: an engine in a process of its own, which takes batches of images and tells what became of them.

Knows nothing of the cluster. Images come as paths and URLs, never as pixels: Ray's own reader makes 8 bits of 16.
"""

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from models import hardware
from models.errors import TesseraError, UsageError
from service.offline.local import ready
from service.offline.runner import Ended, Part, Runner, Todo
from service.offline.work import Work
from service.repository.cluster_changes import newest

T = TypeVar("T")
Objects: TypeAlias = NDArray[np.object_]
RUNS = 2  # batches under way in a worker: while one ends, the next has begun
_TOLD_EVERY_S = 0.5


class Expected(NamedTuple):
    """What a worker is to find where it runs.

    cores   its share of its machine's
    digest  of the bundle;  said  the number of the last change to its clusters
    """

    cores: int
    digest: str
    said: int


@dataclass(frozen=True)
class Numbered:
    """An image to come, with its number. No tuple: as objects Ray carries only what is no list of values."""

    number: int
    todo: Todo


@dataclass(frozen=True)
class Report:
    """What a worker tells, every now and then.

    ended  number, failure and warnings of images that are done;  parts  number, windows done and all of large ones
    broken  what ends the run
    """

    ended: Sequence[tuple[int, str | None, tuple[str, ...]]] = ()
    parts: Sequence[tuple[int, int, int]] = ()
    broken: TesseraError | None = None


class Worker:
    """Made once a process, by Ray Data; what is wrong with it is told by the first batch."""

    def __init__(self, work: Work, expected: Expected) -> None:
        hardware.share_cores(expected.cores)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="engine")
        self._thread.start()
        self._stack = AsyncExitStack()
        self._broken: TesseraError | None = None
        try:
            self._runner = self._wait(self._stack.enter_async_context(_started(work, expected)))
        except (TesseraError, OSError) as error:
            self._broken = _on_this_node(error)

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, Objects]]:
        """Reports, each as it comes, of a batch of `todo`: Numbered."""
        if self._broken is not None:
            yield _column(Report(broken=self._broken))
            return
        yield _column(Report())
        yield from map(_column, self._reports(list(batch["todo"])))

    def close(self) -> None:
        """Lets the engine go; a process that ends need not."""
        self._wait(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _reports(self, numbered: Sequence[Numbered]) -> Iterator[Report]:
        numbers = {one.todo.item.source: one.number for one in numbered}
        told: SimpleQueue[Ended | Part | None] = SimpleQueue()
        done = asyncio.run_coroutine_threadsafe(
            self._runner.run([one.todo for one in numbered], told.put, told.put), self._loop
        )
        done.add_done_callback(lambda _: told.put(None))
        more = True
        while more:
            ended, parts = [], {}
            until = time.monotonic() + _TOLD_EVERY_S
            while more and (left_s := until - time.monotonic()) > 0:
                try:
                    one = told.get(timeout=left_s)
                except Empty:
                    break
                match one:
                    case Ended():
                        ended.append((numbers[one.item.source], one.failed, one.warnings))
                    case Part():
                        parts[numbers[one.item.source]] = (one.done, one.total)
                    case None:
                        more = False
            if ended or parts:
                yield Report(ended, [(number, *part) for number, part in parts.items()])
        if (error := done.exception()) is not None:
            yield Report(broken=_on_this_node(error))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@asynccontextmanager
async def _started(work: Work, expected: Expected) -> AsyncIterator[Runner]:
    """The engine, once what it needs was found where it runs. Raises UsageError, and what its start raises."""
    if not work.outputs.begun:
        raise UsageError(
            f"{work.outputs.where} is another place there than where the command was typed: name an --out that all"
            " nodes share"
        )
    async with ready(work, lambda text: None, runs=RUNS) as (runner, served):
        if served.bundle.digest != expected.digest:
            raise UsageError(f"{work.settings.bundles[0]} holds another bundle there: every node needs the same")
        if newest(served.clusters.past.record) < expected.said:
            raise UsageError(
                f"names and colors that people gave to clusters are not found in {work.settings.state} there: set"
                " TESSERA_STATE to a folder that all nodes share"
            )
        yield runner


def _on_this_node(error: BaseException) -> TesseraError:
    """What is told of an error, with where it happened: one that travels."""
    kind = type(error) if isinstance(error, TesseraError) else TesseraError
    said = str(error) or type(error).__name__
    told = f"on {socket.gethostname()} (process {os.getpid()}): {said}"
    with suppress(TypeError):  # of a kind that is made otherwise
        return kind(told)
    return TesseraError(told)


def _column(report: Report) -> dict[str, Objects]:
    told = np.empty(1, object)
    told[0] = report
    return {"told": told}
