"""The memory of network answers: what is kept, what is shared, and what leaving does."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from service.scheduling.result_cache import SingleFlightCache


class Value(NamedTuple):
    name: str
    nbytes: int = 10


class Maker:
    """Makes values once the test lets it, and counts."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    def __call__(self, name: str, nbytes: int = 10) -> Callable[[], Any]:
        async def make() -> Value:
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            self.made.append(name)
            if self.error:
                raise self.error
            return Value(name, nbytes)

        return make


def play(scenario: Callable[[Maker], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        async with asyncio.timeout(10):
            return await scenario(Maker())

    return asyncio.run(whole())


def test_what_was_made_is_not_made_again() -> None:
    async def scenario(make: Maker) -> None:
        asked: list[bool] = []
        seen: SingleFlightCache[Value] = SingleFlightCache(100, asked.append)
        make.go.set()
        first = await seen.get("a", make("a"))
        assert await seen.get("a", make("again")) is first
        assert (make.made, asked, len(seen), seen.nbytes) == (["a"], [False, True], 1, 10)

    play(scenario)


def test_the_least_recently_used_goes_when_the_bytes_are_too_many() -> None:
    async def scenario(make: Maker) -> None:
        seen: SingleFlightCache[Value] = SingleFlightCache(30)
        make.go.set()
        for name in "abc":
            await seen.get(name, make(name))
        await seen.get("a", make("a"))
        await seen.get("d", make("d", 20))  # b and c, 10 bytes each, make room
        assert (len(seen), seen.nbytes) == (2, 30)
        await seen.get("a", make("a"))
        await seen.get("b", make("b"))
        assert make.made == ["a", "b", "c", "d", "b"]
        await seen.get("huge", make("huge", 31))
        assert seen.nbytes <= 30

    play(scenario)


def test_those_who_ask_at_once_share_one_making() -> None:
    async def scenario(make: Maker) -> None:
        asked: list[bool] = []
        seen: SingleFlightCache[Value] = SingleFlightCache(100, asked.append)
        tasks = [asyncio.create_task(seen.get("a", make("a"))) for _ in range(20)]
        await asyncio.sleep(0)
        make.go.set()
        assert {id(value) for value in await asyncio.gather(*tasks)} == {id(tasks[0].result())}
        assert make.made == ["a"]
        assert asked == [False] + [True] * 19

    play(scenario)


def test_who_leaves_does_not_take_the_others_along() -> None:
    async def scenario(make: Maker) -> None:
        seen: SingleFlightCache[Value] = SingleFlightCache(100)
        first, second = (asyncio.create_task(seen.get("a", make("a"))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        make.go.set()
        assert (await second).name == "a"
        assert make.cancelled == []

    play(scenario)


def test_with_the_last_who_leaves_the_making_ends_and_the_next_begins_anew() -> None:
    async def scenario(make: Maker) -> None:
        seen: SingleFlightCache[Value] = SingleFlightCache(100)
        tasks = [asyncio.create_task(seen.get("a", make("a"))) for _ in range(2)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        make.go.set()
        assert (await seen.get("a", make("b"))).name == "b"
        assert (make.cancelled, make.made) == (["a"], ["b"])

    play(scenario)


def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    async def scenario(make: Maker) -> None:
        seen: SingleFlightCache[Value] = SingleFlightCache(100)
        make.error = ValueError("damaged")
        tasks = [asyncio.create_task(seen.get("a", make("a"))) for _ in range(3)]
        await asyncio.sleep(0)
        make.go.set()
        assert [str(e) for e in await asyncio.gather(*tasks, return_exceptions=True)] == ["damaged"] * 3
        make.error = None
        assert (await seen.get("a", make("a"))).name == "a"

    play(scenario)
    gc.collect()  # an exception that nobody fetched would be a warning, and so an error, here


def test_switched_off_every_call_makes_its_own() -> None:
    async def scenario(make: Maker) -> None:
        seen: SingleFlightCache[Value] = SingleFlightCache(0)
        make.go.set()
        assert not seen.on
        await asyncio.gather(*(seen.get("a", make("a")) for _ in range(3)))
        assert make.made == ["a"] * 3
        assert len(seen) == 0

    play(scenario)
