"""A fair queue: the order in which what waits is taken, and what goes along with it.

Between keys, turns go around: next leads whoever led longest ago, also if it had nothing waiting meanwhile. So each key
that has something waiting leads once before any leads twice, one that floods delays another by its share and no more,
and one that comes beside a flood leads next. Within a key the lowest rank is first; ranks never change while
they wait, so what waits long enough is ahead of everything that comes later. What is of the leader's group may go
along; who so gets ahead of its own key's first keeps its turn, and who could not go along keeps its place: each
batch is led by whoever is first in line, whatever its group. One key, BACKGROUND, is for what nobody waits for: beside
others it leads one turn of so many, and goes along only where none of them does.

Knows nothing of time, threads, networks or pixels; whoever shares it between threads holds a lock.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar

BACKGROUND = "\0background"  # no caller's name
_EVERY = 10
_REMEMBERED = 1024  # keys whose last turn is known
_SPARE = 64  # withdrawn entries that may lie around before they are swept out


@dataclass(eq=False, slots=True)
class Entry:
    """Something that waits in the queue.

    key       whose it is
    group     only equal ones go together
    rank      lowest first, among those of one key
    deadline  from then on it is not worth taking
    cost      of a batch's budget
    waits     neither taken nor withdrawn yet
    """

    key: str
    group: Hashable
    rank: float
    deadline: float
    cost: float
    waits: bool = field(default=True, init=False)


W = TypeVar("W", bound=Entry)
HeapItem = tuple[float, int, W]  # rank, number of arrival, who


class Taken(NamedTuple, Generic[W]):
    """Who goes together now, in the order of their turns, and those that were too late."""

    batch: list[W]
    late: list[W]


class _KeyQueue(Generic[W]):
    """What waits of one key: a heap for each group. Withdrawn entries stay until they come up or are swept out."""

    __slots__ = ("heaps", "waiting")

    def __init__(self) -> None:
        self.heaps: dict[Hashable, list[HeapItem[W]]] = {}
        self.waiting = 0


class FairQueue(Generic[W]):
    """What waits, in the order in which it is taken. Adding, withdrawing and taking cost O(log n) of those that wait.

    every    the background leads one of so many turns while others wait

    waiting  how many are in it
    """

    def __init__(self, every: int = _EVERY) -> None:
        self.waiting = 0
        self._every = every
        self._queues: OrderedDict[str, _KeyQueue[W]] = OrderedDict()  # who leads next comes first; none is empty
        self._led: OrderedDict[str, int] = OrderedDict()  # when each key led last, the latest at the end
        self._turns = 0
        self._arrivals = 0
        self._gone = 0  # withdrawn entries that still lie in a heap

    def add(self, entry: W) -> None:
        """Join: behind its equals."""
        queue = self._queues.get(entry.key)
        if queue is None:
            queue = self._enter(entry.key)
        self._arrivals += 1
        heappush(queue.heaps.setdefault(entry.group, []), (entry.rank, self._arrivals, entry))
        queue.waiting += 1
        self.waiting += 1

    def withdraw(self, entry: W) -> bool:
        """Leave the line; False for one that was taken already."""
        if not entry.waits:
            return False
        self._gone += 1
        self._leave(entry)
        if self._gone > self.waiting + _SPARE:
            self._sweep()
        return True

    def take(self, now: float, size: int = 1, cost: float = math.inf) -> Taken[W]:
        """First in line with what is of its group, up to `size` of them that cost no more than `cost`; a first one is
        never too dear. Nobody when nobody waits.

        Late ones that come up are taken out on the way; they cost nobody a turn.
        """
        batch: list[W] = []
        late: list[W] = []
        while self._queues:
            key, queue = self._next()
            if (first := self._first(queue, now, late)) is not None:
                self._lead(key)
                self._pop(queue, first[2])
                batch.append(first[2])
                if size > 1:
                    self._join(batch, late, now, size, cost - first[2].cost)
                break
        return Taken(batch, late)

    def ahead(self, key: str, rank: float, group: Hashable = None) -> int:
        """At least how many go before one who would join now, if nobody withdraws.

        group  count only those of this group; None: all
        """
        own = 0
        if (queue := self._queues.get(key)) is not None:
            for heap in (queue.heaps.values()) if group is None else [queue.heaps.get(group, [])]:
                own += sum(item[0] <= rank and item[2].waits for item in heap)
        if group is not None:
            return own
        others = (other for name, other in self._queues.items() if name not in (key, BACKGROUND))
        return own + sum(min(other.waiting, own) for other in others)

    def clear(self) -> list[W]:
        """Empty the line; returns who waited, in no order."""
        entries = (item for queue in self._queues.values() for heap in queue.heaps.values() for item in heap)
        left = [entry for _, _, entry in entries if entry.waits]
        for entry in left:
            entry.waits = False
        self._queues.clear()
        self.waiting = self._gone = 0
        return left

    def _next(self) -> tuple[str, _KeyQueue[W]]:
        """Whose turn it is; there is somebody."""
        keys = iter(self._queues.items())
        first = next(keys)
        if first[0] != BACKGROUND or self._turns - self._led.get(BACKGROUND, -self._every) >= self._every - 1:
            return first
        return next(keys, first)

    def _enter(self, key: str) -> _KeyQueue[W]:
        """A key's queue, behind those who led before it did, or as long ago."""
        led = self._led.get(key, 0)
        before = [other for other in self._queues if self._led.get(other, 0) <= led]
        queue = self._queues[key] = _KeyQueue()
        for other in (key, *reversed(before)):
            self._queues.move_to_end(other, last=False)
        return queue

    def _lead(self, key: str) -> None:
        """A key has its turn."""
        self._turns += 1
        self._led[key] = self._turns
        self._led.move_to_end(key)
        self._queues.move_to_end(key)
        if len(self._led) > _REMEMBERED:
            self._led.popitem(last=False)

    def _join(self, batch: list[W], late: list[W], now: float, size: int, budget: float) -> None:
        """Fill a batch, one of each key in turn, as often as somebody of the leader's group still fits."""
        group = batch[0].group
        queues = dict(self._queues)  # the leader's last: it has had one
        background = queues.pop(BACKGROUND, None)
        for round_ in (queues, {BACKGROUND: background} if background else {}):
            before = 0
            while before < len(batch) < size:
                before = len(batch)
                for key, queue in round_.items():
                    if len(batch) == size:
                        break
                    item = self._head(queue, group, now, late)
                    if item is None or item[2].cost > budget:
                        continue
                    if item is self._first(queue, now, late) and key != BACKGROUND:
                        self._lead(key)
                    self._pop(queue, item[2])
                    batch.append(item[2])
                    budget -= item[2].cost

    def _first(self, queue: _KeyQueue[W], now: float, late: list[W]) -> HeapItem[W] | None:
        """Who is first of a key, of whatever group."""
        groups = list(queue.heaps)
        if len(groups) == 1:
            return self._head(queue, groups[0], now, late)
        heads = [self._head(queue, group, now, late) for group in groups]
        return min((head for head in heads if head is not None), default=None)

    def _head(self, queue: _KeyQueue[W], group: Hashable, now: float, late: list[W]) -> HeapItem[W] | None:
        """Who is first of a key and a group, once the withdrawn and the late are out of the way."""
        heap = queue.heaps.get(group)
        while heap:
            entry = heap[0][2]
            if not entry.waits:
                heappop(heap)
                self._gone -= 1
            elif entry.deadline <= now:
                self._pop(queue, entry)
                late.append(entry)
            else:
                return heap[0]
        queue.heaps.pop(group, None)
        return None

    def _pop(self, queue: _KeyQueue[W], head: W) -> None:
        heappop(queue.heaps[head.group])
        self._leave(head)

    def _leave(self, entry: W) -> None:
        entry.waits = False
        self.waiting -= 1
        queue = self._queues[entry.key]
        queue.waiting -= 1
        if not queue.waiting:
            for heap in queue.heaps.values():
                self._gone -= len(heap)
                heap.clear()
            del self._queues[entry.key]

    def _sweep(self) -> None:
        for queue in self._queues.values():
            for group, heap in list(queue.heaps.items()):
                heap[:] = [item for item in heap if item[2].waits]
                heapify(heap)
                if not heap:
                    del queue.heaps[group]
        self._gone = 0
