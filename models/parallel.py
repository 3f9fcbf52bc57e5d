"""The parts of one job on several threads. The functions are compiled ones that hold no lock while they run.

Knows nothing of what the parts are.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from typing import Any, Self


class ThreadTeam:
    """So many threads, of which the caller's own is one. A context: the others end with it."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._others:
            self._others.shutdown()

    def shares(self, start: int, stop: int) -> list[int]:
        """The bounds of equal parts, one a thread."""
        return [start + (stop - start) * part // self.threads for part in range(self.threads + 1)]

    def map_ranges(self, function: Callable[..., Any], *before: Any, parts: Sequence[int]) -> list[Any]:
        """function(*before, start, stop) of every part; what each gave, in order, when all are done."""
        return self.run(*(partial(function, *before, *bounds) for bounds in pairwise(parts)))

    def run(self, *jobs: Callable[[], Any]) -> list[Any]:
        """Every job, each by the next thread that is free; what each gave, in order, when all are done."""
        if self._others is None:
            return [job() for job in jobs]
        waiting, gave = deque(enumerate(jobs)), [None] * len(jobs)

        def some() -> None:
            while True:
                try:
                    which, job = waiting.popleft()
                except IndexError:  # the last one is taken
                    return
                gave[which] = job()

        begun = [self._others.submit(some) for _ in range(min(self.threads, len(jobs)) - 1)]
        try:
            some()
        finally:
            wait(begun)  # a failed part's arrays must not be let go while others write to them
        for one in begun:
            one.result()
        return gave
