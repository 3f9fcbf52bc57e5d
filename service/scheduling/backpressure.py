"""Backpressure: of each key only so many are let on to a stage whose next one is slower; the others wait before it.

Knows nothing of what the stages do. A key that is below its limit never waits, whatever others have inside.
"""

import asyncio
import itertools
from collections import Counter, defaultdict
from heapq import heappop, heappush


class Backpressure:
    """Places for `limit` of each key; within one the lowest rank is next. For one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: Counter[str] = Counter()
        self._waiting: defaultdict[str, list[tuple[float, int, asyncio.Future[None]]]] = defaultdict(list)
        self._arrivals = itertools.count()

    async def enter(self, key: str, rank: float, longest_s: float) -> None:
        """Take one of the key's places, until `leave`; after `longest_s` seconds of waiting go on without one."""
        if self._inside[key] < self._limit:
            self._inside[key] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        heappush(self._waiting[key], (rank, next(self._arrivals), turn))
        try:
            await asyncio.wait((turn,), timeout=longest_s)
        except asyncio.CancelledError:
            if not turn.cancel():  # it had just been given its place
                self.leave(key)
            raise
        if turn.cancel():
            self._inside[key] += 1

    def leave(self, key: str) -> None:
        """Hand the place on, or give it back where nobody waits or too many are inside."""
        waiting = self._waiting[key]
        while waiting and self._inside[key] <= self._limit:
            if not (turn := heappop(waiting)[2]).done():
                turn.set_result(None)
                return
        self._inside[key] -= 1
        if not self._inside[key]:
            del self._inside[key], self._waiting[key]
