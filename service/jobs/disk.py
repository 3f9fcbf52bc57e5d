"""Threads for what waits on disks and stores: nobody's request waits behind them.

Knows nothing of jobs.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


class DiskThreads:
    """So many threads for functions without arguments."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="jobs")

    async def run(self, work: Callable[[], T]) -> T:
        """What a function returns or raises, from one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, work)

    def close(self) -> None:
        """What has not begun never does."""
        self._threads.shutdown(wait=False, cancel_futures=True)
