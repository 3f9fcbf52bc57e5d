"""The parts of one job on several threads. The functions are compiled ones that hold no lock while they run.

Knows nothing of what the parts are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from types import TracebackType
from typing import Any, Self


class Crew:
    """So many threads, of which the caller's own is one. A context: the others end with it."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._others:
            self._others.shutdown()

    def shares(self, start: int, stop: int) -> list[int]:
        """The bounds of equal parts, one a thread."""
        return [start + (stop - start) * part // self.threads for part in range(self.threads + 1)]

    def each(self, function: Callable[..., Any], *before: Any, parts: Sequence[int]) -> list[Any]:
        """function(*before, start, stop) of every part; what each gave, in order, when all are done."""
        return self.all(lambda bounds: function(*before, *bounds), list(pairwise(parts)))

    def all(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """function of every job, dealt out to the threads; what each gave, in order, when all are done."""
        if self._others is None:
            return [function(job) for job in jobs]

        def some(which: int) -> list[Any]:
            return [function(job) for job in jobs[which :: self.threads]]

        begun = [self._others.submit(some, which) for which in range(1, self.threads)]
        try:
            done = [some(0)]
        finally:
            wait(begun)  # a failed part's arrays must not be let go while others write to them
        done += [one.result() for one in begun]
        return [done[i % self.threads][i // self.threads] for i in range(len(jobs))]
