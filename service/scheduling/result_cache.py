"""A single-flight cache: results kept for those who ask again, and shared with those who ask meanwhile.

Knows nothing of HTTP, images or clusters: keys in, what a coroutine makes of them out. Calls for one key that come
while it is being made wait for that one coroutine.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows the bytes it holds."""

    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


@dataclass(eq=False)
class _Making(Generic[V]):
    task: asyncio.Task[V]
    waiting: int = 0


class SingleFlightCache(Generic[V]):
    """Keeps results; the least recently used goes first, once `max_bytes` are held.

    max_bytes  0 keeps nothing and shares nothing: every call makes its own
    on_ask     told of every call whether it was answered without making anything
    """

    def __init__(self, max_bytes: int, on_ask: Callable[[bool], None] = lambda hit: None) -> None:
        self._max_bytes = max_bytes
        self._on_ask = on_ask
        self._kept: OrderedDict[Hashable, V] = OrderedDict()
        self._making: dict[Hashable, _Making[V]] = {}
        self.nbytes = 0

    @property
    def on(self) -> bool:
        """Whether anything is kept or shared."""
        return self._max_bytes > 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def peek(self, key: Hashable) -> V | None:
        """What is kept for a key; nobody has asked for it."""
        return self._kept.get(key)

    async def get(
        self,
        key: Hashable,
        make: Callable[[], Coroutine[Any, Any, V]],
        *,
        retry_on: tuple[type[Exception], ...] = (),
    ) -> V:
        """What `make` gives, or gave before, for this key.

        again  what a making may raise that is true of its own caller only: who merely waited then asks for itself

        Cancelled, a call leaves; the making goes on while another call waits for it, and is cancelled with the
        last one. What it raises reaches all who wait, and is not kept.
        """
        if not self.on:
            self._on_ask(False)
            return await make()
        if key in self._kept:
            self._kept.move_to_end(key)
            self._on_ask(True)
            return self._kept[key]
        own = key not in self._making
        self._on_ask(not own)
        while True:
            try:
                return await self._wait(key, make)
            except retry_on:
                if own:
                    raise
                own = key not in self._making

    async def _wait(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, V]]) -> V:
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = _Making(asyncio.ensure_future(make()))
            making.task.add_done_callback(lambda task: self._made(key, task))
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.waiting -= 1
            if not making.waiting and not making.task.done():
                making.task.cancel()
                self._making.pop(key, None)  # whoever comes now must not wait for what ends

    def _made(self, key: Hashable, task: asyncio.Task[V]) -> None:
        if (making := self._making.get(key)) and making.task is task:
            del self._making[key]
        if task.cancelled() or task.exception() is not None:
            return
        value = task.result()
        if value.nbytes > self._max_bytes:
            return
        self.nbytes -= self._kept.pop(key).nbytes if key in self._kept else 0
        self._kept[key] = value
        self.nbytes += value.nbytes
        while self.nbytes > self._max_bytes:
            self.nbytes -= self._kept.popitem(last=False)[1].nbytes
