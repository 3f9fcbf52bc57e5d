"""The overload test's own judgment, on a server that answers as told."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from benchmarks import load

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FULL = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: 2\r\n\r\n"
WARNED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-warning: not refined\r\n\r\n"
RUDE = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def answering(answers: Iterator[bytes]) -> AsyncIterator[int]:
    """The port of a server that gives these answers in turn."""
    connections: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        answer = b""
        try:
            while b"connection: close" not in answer:
                await reader.readuntil(b"\r\n\r\n")
                answer = next(answers)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has left
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await asyncio.gather(*(task for task in connections if task))
        server.close()
        await server.wait_closed()


async def asked(answers: Iterator[bytes], load_: Callable[[load.Client], Awaitable[load.Seen]]) -> load.Seen:
    """What a client sees of them."""
    async with answering(answers) as port:
        client = load.Client(port)
        try:
            return await load_(client)
        finally:
            await client.close()


async def flooded(answers: Iterator[bytes], rate: float, secs: float) -> load.Seen:
    return await asked(answers, lambda client: load.flood(client, [REQUEST], rate, secs))


def test_every_arrival_is_answered_and_counted_by_status() -> None:
    seen = asyncio.run(flooded(itertools.cycle([OK, FULL, FULL]), rate=300, secs=0.3))
    assert sum(seen.statuses.values()) == pytest.approx(90, abs=40)
    assert seen.statuses["503"] == pytest.approx(2 * seen.statuses["200"], abs=3)
    assert len(seen.accepted_s) == seen.statuses["200"]
    assert seen.no_retry == 0
    assert all(load.judged(seen, 1.0, [200.0] * 8, None).values())


def test_clients_who_wait_for_their_answer_ask_one_after_the_other() -> None:
    answers = itertools.chain([WARNED] * 3, itertools.cycle([OK]))
    seen = asyncio.run(asked(answers, lambda client: load.closed(client, [REQUEST], clients=2, secs=0.2)))
    assert set(seen.statuses) == {"200"}
    assert len(seen.accepted_s) == seen.statuses["200"] > 3
    assert seen.warned == 3
    assert sum(seen.accepted_s) <= 2 * seen.wall_s


def test_a_refusal_without_retry_after_and_a_closed_connection_are_noticed() -> None:
    seen = asyncio.run(flooded(itertools.cycle([OK, RUDE]), rate=200, secs=0.2))
    assert seen.no_retry == seen.statuses["503"] > 0
    held = load.judged(seen, 1.0, [200.0] * 8, None)
    assert [what for what, holds in held.items() if not holds] == ["every refusal has Retry-After"]


@pytest.mark.parametrize(
    ("statuses", "accepted", "samples", "passes", "broken"),
    [
        ({"200": 1, "500": 1}, [0.1], [200.0] * 8, None, "only 200, 503 and 429"),
        ({"200": 1, "ConnectionResetError": 1}, [0.1], [200.0] * 8, None, "only 200, 503 and 429"),
        ({"200": 2}, [0.1, 2.5], [200.0] * 8, None, "accepted p99 within twice the queue bound"),
        ({"503": 2}, [], [200.0] * 8, None, "accepted p99 within twice the queue bound"),
        ({"200": 1}, [0.1], [200.0, 200, 210, 210, 220, 230, 240, 250], None, "memory flat"),
        ({"200": 1}, [0.1], [200.0] * 8, "3 encoder passes for 4 images", "a pass for every image"),
    ],
)
def test_what_must_hold(
    statuses: dict[str, int], accepted: list[float], samples: list[float], passes: str | None, broken: str
) -> None:
    seen = load.Seen(accepted_s=accepted)
    seen.statuses.update(statuses)
    held = load.judged(seen, 1.0, samples, passes)
    assert [what for what, holds in held.items() if not holds] == [broken]


def test_filling_the_queue_for_the_first_time_is_no_growth() -> None:
    assert load.growth([100.0, 150.0, 200.0, 200.0, 200.0, 200.0, 202.0, 202.0]) == pytest.approx(0.01)
