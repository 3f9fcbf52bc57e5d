"""Backpressure: a key's limit, the order within it, and that nobody's leaving or giving up loses a place."""

import asyncio

from service.scheduling.backpressure import Backpressure


class Crowd:
    """Images that enter, in the order in which they did."""

    def __init__(self, limit: int) -> None:
        self.door = Backpressure(limit)
        self.inside: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def comes(self, name: str, key: str = "a", rank: float = 0, longest_s: float = 60) -> None:
        self._leave[name] = asyncio.Event()

        async def through() -> None:
            await self.door.enter(key, rank, longest_s)
            self.inside.append(name)
            await self._leave[name].wait()
            self.door.leave(key)

        self.tasks[name] = asyncio.create_task(through())
        await asyncio.sleep(0.01)

    async def leaves(self, name: str) -> None:
        self._leave[name].set()
        await self.tasks[name]
        self.inside.remove(name)
        await asyncio.sleep(0.01)

    async def empty(self) -> None:
        for name in list(self.inside):
            await self.leaves(name)
        assert not self.door._inside
        assert not self.door._waiting


def test_a_key_has_so_many_inside_and_the_lowest_rank_is_next() -> None:
    async def scenario() -> None:
        crowd = Crowd(limit=2)
        for name, rank in (("1", 0), ("2", 0), ("late", 5), ("soon", 4), ("urgent", -10)):
            await crowd.comes(name, rank=rank)
        assert crowd.inside == ["1", "2"]
        await crowd.leaves("2")
        assert crowd.inside == ["1", "urgent"]
        await crowd.leaves("1")
        assert crowd.inside == ["urgent", "soon"]
        await crowd.leaves("urgent")
        await crowd.empty()

    asyncio.run(scenario())


def test_another_key_never_waits_for_it() -> None:
    async def scenario() -> None:
        crowd = Crowd(limit=1)
        for name in ("1", "2", "3"):
            await crowd.comes(name)
        await crowd.comes("other", key="b")
        assert crowd.inside == ["1", "other"]
        for name in ("1", "2", "3", "other"):
            await crowd.leaves(name)
        await crowd.empty()

    asyncio.run(scenario())


def test_after_its_time_it_goes_on_and_the_next_waits_until_there_is_room() -> None:
    async def scenario() -> None:
        crowd = Crowd(limit=1)
        await crowd.comes("1")
        await crowd.comes("patient")
        await crowd.comes("hasty", longest_s=0)
        assert crowd.inside == ["1", "hasty"]
        await crowd.leaves("1")
        assert crowd.inside == ["hasty"]
        await crowd.leaves("hasty")
        assert crowd.inside == ["patient"]
        await crowd.empty()

    asyncio.run(scenario())


def test_who_leaves_while_waiting_takes_no_place() -> None:
    async def scenario() -> None:
        crowd = Crowd(limit=1)
        for name in ("1", "gone", "next"):
            await crowd.comes(name)
        crowd.tasks["gone"].cancel()
        await crowd.leaves("1")
        assert crowd.inside == ["next"]
        await crowd.empty()

    asyncio.run(scenario())


def test_who_leaves_just_when_its_turn_came_hands_the_place_on() -> None:
    async def scenario() -> None:
        door = Backpressure(1)
        await door.enter("a", 0, 60)
        gone = asyncio.create_task(door.enter("a", 0, 60))
        after = asyncio.create_task(door.enter("a", 1, 60))
        await asyncio.sleep(0.01)
        door.leave("a")
        gone.cancel()  # its turn is set, and it has not run since
        await asyncio.wait_for(after, 1)
        assert gone.cancelled()

    asyncio.run(scenario())
