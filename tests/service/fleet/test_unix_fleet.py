"""Workers that ask each other: answers, what fails, who takes too long, and that nobody else is let in."""

import asyncio
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from models.errors import TesseraError
from service.fleet import messages, unix_fleet
from service.fleet.fleet import Call, Reply
from service.fleet.unix_fleet import UnixFleet
from tests.service.fleet.pair import fleets


async def up(members: list[UnixFleet]) -> None:
    for member in members:
        await member.start()


async def down(members: list[UnixFleet]) -> None:
    for member in members:
        await member.close()


def test_every_other_is_asked_and_those_that_fail_are_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, two, three = members = fleets(tmp_path, 3)

        async def double(arguments: Call) -> Call:
            return {"n": 2 * arguments["n"]}

        async def refuse(arguments: Call) -> Call:
            raise TesseraError("there is no room")

        async def fail(arguments: Call) -> Call:
            raise ZeroDivisionError

        two.on("double", double)
        three.on("double", refuse)
        two.on("odd", fail)
        await up(members)
        assert await one.ask("double", {"n": 3}) == [Reply("2", {"n": 6}), Reply("3", error="there is no room")]
        odd = await one.ask("odd")
        assert odd[0].error == "ZeroDivisionError; its log tells more"
        assert odd[1].error == "it knows no call 'odd'"
        await two.close()
        gone = (await one.ask("double", {"n": 3}))[0]
        assert (gone.answer, gone.error) == (None, "it cannot be reached: no such file or directory")
        await two.start()  # anew
        assert (await one.ask("double", {"n": 4}))[0].answer == {"n": 8}
        await down(members)

    asyncio.run(scenario())


def test_who_takes_too_long_is_named_and_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, two = members = fleets(tmp_path, 2)
        ended = asyncio.Event()

        async def slow(arguments: Call) -> Call:
            await asyncio.sleep(0.1)
            ended.set()
            return {}

        two.on("slow", slow)
        await up(members)
        began = time.monotonic()
        (late,) = await one.ask("slow", limit_s=0.02)
        assert time.monotonic() - began < 0.1
        assert late == Reply("2", error="it has not answered within 0.02 s")
        await ended.wait()
        await down(members)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0\0", struct.pack(">I", 10) + b"{}", struct.pack(">I", 2**31), struct.pack(">I", 3) + b"[1]", b"GET / HT"],
)
def test_what_is_no_message_ends_its_connection_and_nothing_else(sent: bytes, tmp_path: Path) -> None:
    async def scenario() -> None:
        one, two = members = fleets(tmp_path, 2)

        async def well(arguments: Call) -> Call:
            return {"well": True}

        one.on("well", well)
        await up(members)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "1.sock")
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert (await two.ask("well"))[0].answer == {"well": True}
        await down(members)

    asyncio.run(scenario())


def test_another_users_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        _, two = members = fleets(tmp_path, 2)
        await up(members)
        monkeypatch.setattr(unix_fleet.os, "getuid", lambda: 12345)
        (refused,) = await two.ask("anything")
        assert refused.answer is None
        assert refused.error
        await down(members)

    asyncio.run(scenario())


def test_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_BYTES", 50)

    async def read(data: bytes) -> Any:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await messages.receive(reader)

    def packed(value: object) -> bytes:
        data = json.dumps(value).encode()
        return struct.pack(">I", len(data)) + data

    assert asyncio.run(read(packed({"a": "ä"}))) == {"a": "ä"}
    with pytest.raises(messages.NoMessage, match="more than the 50"):
        asyncio.run(read(packed({"a": "x" * 50})))
    with pytest.raises(messages.NoMessage, match="no object"):
        asyncio.run(read(packed([])))


def test_one_at_a_time_over_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        order: list[str] = []

        async def work(fleet: UnixFleet) -> None:
            async with fleet.one_at_a_time("load"):
                order.append(f"{fleet.member} begins")
                await asyncio.sleep(0.02)
                order.append(f"{fleet.member} ends")

        await asyncio.gather(*map(work, fleets(tmp_path, 3)))
        assert [line.split()[1] for line in order] == ["begins", "ends"] * 3
        assert {line.split()[0] for line in order} == {"1", "2", "3"}

    asyncio.run(scenario())


def test_what_is_kept_is_found_by_the_next(tmp_path: Path) -> None:
    one, two = fleets(tmp_path, 2)
    assert one.kept("models") is None
    one.keep("models", [{"ref": "a@b"}])
    assert two.kept("models") == [{"ref": "a@b"}]


def test_a_folder_whose_sockets_have_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TesseraError, match="TMPDIR"):
        UnixFleet(tmp_path / ("x" * 100), ["1"], "1")
