"""A server that is alone: what it would answer, and that nobody else is asked."""

import asyncio

from service.fleet.fleet import Call, Fleet


def test_alone_it_asks_nobody_and_answers_by_its_handlers() -> None:
    fleet = Fleet()

    async def twice(arguments: Call) -> Call:
        return {"n": 2 * arguments["n"]}

    fleet.on("twice", twice)
    assert asyncio.run(fleet.ask("twice", {"n": 2})) == []
    assert asyncio.run(fleet.answer("twice", {"n": 2})) == {"n": 4}
