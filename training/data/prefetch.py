"""The next few results, computed in threads while the current one is used.

Knows nothing of what is computed. Decoding and resizing release Python's lock, so threads are enough and
nothing is copied between processes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """`map(function, items)`, in order, with up to 2 × workers results under way; 0 workers: none."""
    if workers < 1:
        yield from map(function, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(waiting, 2 * workers))
        try:
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(function, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in ahead:
                future.cancel()
