"""Whose turn it is: the order in which what waits is taken, and what goes along with it.

Between keys, turns go around: each key that has something waiting leads once before any leads twice, so one that
floods delays another by its share and no more. Within a key the lowest rank is first; ranks never change while
they wait, so what waits long enough is ahead of everything that comes later. What has the leader's shape may go
along; who so gets ahead of its own key's first keeps its turn, and who could not go along keeps its place: each
batch is led by whoever is first in line, whatever its shape.

Knows nothing of time, threads, networks or pixels; whoever shares it between threads holds a lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar

Shape = tuple[int, ...]
_SPARE = 64  # withdrawn entries that may lie around before they are swept out


@dataclass(eq=False, slots=True)
class Entry:
    """Something that waits for its turn.

    key       whose it is
    shape     only equal ones go together
    rank      lowest first, among those of one key
    deadline  from then on it is not worth taking
    waits     neither taken nor withdrawn yet
    """

    key: str
    shape: Shape
    rank: float
    deadline: float
    waits: bool = field(default=True, init=False)


W = TypeVar("W", bound=Entry)
HeapItem = tuple[float, int, W]  # rank, number of arrival, who


class Taken(NamedTuple, Generic[W]):
    """Who goes together now, in the order of their turns, and those that were too late."""

    batch: list[W]
    late: list[W]


class _KeyQueue(Generic[W]):
    """What waits of one key: a heap for each shape. Withdrawn entries stay until they come up or are swept out."""

    __slots__ = ("heaps", "waiting")

    def __init__(self) -> None:
        self.heaps: dict[Shape, list[HeapItem[W]]] = {}
        self.waiting = 0


class FairQueue(Generic[W]):
    """The line. Adding, withdrawing and taking one cost O(log n), however many wait.

    waiting  how many are in it
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._lanes: OrderedDict[str, _KeyQueue[W]] = OrderedDict()  # who leads next comes first; none is empty
        self._arrivals = 0
        self._gone = 0  # withdrawn entries that still lie in a heap

    def add(self, waiter: W) -> None:
        """Join: behind its equals."""
        lane = self._lanes.get(waiter.key)
        if lane is None:
            lane = self._lanes[waiter.key] = _KeyQueue()
        self._arrivals += 1
        heappush(lane.heaps.setdefault(waiter.shape, []), (waiter.rank, self._arrivals, waiter))
        lane.waiting += 1
        self.waiting += 1

    def withdraw(self, waiter: W) -> bool:
        """Leave the line; False for one that was taken already."""
        if not waiter.waits:
            return False
        self._gone += 1
        self._leave(waiter)
        if self._gone > self.waiting + _SPARE:
            self._sweep()
        return True

    def take(self, now: float, most: Callable[[Shape], int]) -> Taken[W]:
        """First in line with what has its shape, up to `most(shape)` of them; nobody when nobody waits.

        Late ones that come up are taken out on the way; they cost nobody a turn.
        """
        batch: list[W] = []
        late: list[W] = []
        while self._lanes:
            key, lane = next(iter(self._lanes.items()))
            if (first := self._first(lane, now, late)) is not None:
                self._lanes.move_to_end(key)
                self._pop(lane, first[2])
                batch.append(first[2])
                if (limit := most(first[2].shape)) > 1:
                    self._join(batch, late, now, limit)
                break
        return Taken(batch, late)

    def ahead(self, key: str, rank: float, shape: Shape | None) -> int:
        """At least how many go before one who would join now, if nobody withdraws.

        shape  count only those with this shape; None: all
        """
        own = 0
        if (lane := self._lanes.get(key)) is not None:
            for heap in (lane.heaps.values()) if shape is None else [lane.heaps.get(shape, [])]:
                own += sum(entry[0] <= rank and entry[2].waits for entry in heap)
        if shape is not None:
            return own
        return own + sum(min(other.waiting, own) for name, other in self._lanes.items() if name != key)

    def clear(self) -> list[W]:
        """Empty the line; returns who waited, in no order."""
        entries = (entry for lane in self._lanes.values() for heap in lane.heaps.values() for entry in heap)
        left = [waiter for _, _, waiter in entries if waiter.waits]
        for waiter in left:
            waiter.waits = False
        self._lanes.clear()
        self.waiting = self._gone = 0
        return left

    def _join(self, batch: list[W], late: list[W], now: float, most: int) -> None:
        """Fill a batch, one of each key in turn, as often as somebody still has the leader's shape."""
        shape = batch[0].shape
        lanes = list(self._lanes.items())  # the leader's last: it has had one
        before = 0
        while before < len(batch) < most:
            before = len(batch)
            for key, lane in lanes:
                if len(batch) == most:
                    break
                if (entry := self._head(lane, shape, now, late)) is None:
                    continue
                if entry is self._first(lane, now, late):
                    self._lanes.move_to_end(key)
                self._pop(lane, entry[2])
                batch.append(entry[2])

    def _first(self, lane: _KeyQueue[W], now: float, late: list[W]) -> HeapItem[W] | None:
        """Who is first of a key, of whatever shape."""
        shapes = list(lane.heaps)
        if len(shapes) == 1:
            return self._head(lane, shapes[0], now, late)
        heads = [self._head(lane, shape, now, late) for shape in shapes]
        return min((head for head in heads if head is not None), default=None)

    def _head(self, lane: _KeyQueue[W], shape: Shape, now: float, late: list[W]) -> HeapItem[W] | None:
        """Who is first of a key and a shape, once the withdrawn and the late are out of the way."""
        heap = lane.heaps.get(shape)
        while heap:
            waiter = heap[0][2]
            if not waiter.waits:
                heappop(heap)
                self._gone -= 1
            elif waiter.deadline <= now:
                self._pop(lane, waiter)
                late.append(waiter)
            else:
                return heap[0]
        lane.heaps.pop(shape, None)
        return None

    def _pop(self, lane: _KeyQueue[W], head: W) -> None:
        heappop(lane.heaps[head.shape])
        self._leave(head)

    def _leave(self, waiter: W) -> None:
        waiter.waits = False
        self.waiting -= 1
        lane = self._lanes[waiter.key]
        lane.waiting -= 1
        if not lane.waiting:
            for heap in lane.heaps.values():
                self._gone -= len(heap)
                heap.clear()
            del self._lanes[waiter.key]

    def _sweep(self) -> None:
        for lane in self._lanes.values():
            for shape, heap in list(lane.heaps.items()):
                heap[:] = [entry for entry in heap if entry[2].waits]
                heapify(heap)
                if not heap:
                    del lane.heaps[shape]
        self._gone = 0
