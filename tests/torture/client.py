"""An HTTP/1.1 client that may misbehave: whole requests or raw bytes, over asyncio, from any loopback address.

Knows nothing of what is tested, nor of how a server answers.
"""

import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError)
HOME, NEIGHBOR, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"  # three clients, as a server sees addresses


class Answer(NamedTuple):
    """One whole answer. `headers` by their names in small letters; `seconds` since the request was sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0.0

    def json(self) -> Any:
        """The body, parsed. Raises ValueError."""
        return json.loads(self.body)

    @property
    def is_problem(self) -> bool:
        """Whether it is a problem document whose id is the head's."""
        if self.headers.get("content-type") != "application/problem+json":
            return False
        document = self.json()
        return bool(document["status"] == self.status and document["request_id"] == self.headers.get("x-request-id"))


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request's bytes."""
    lines = {"Host": HOME, **({"Content-Length": str(len(body))} if body or method != "GET" else {}), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def connect(port: int, source: str = HOME) -> Stream:
    """A connection from one of the loopback addresses. Raises OSError."""
    return await asyncio.open_connection(HOME, port, local_addr=(source, 0))


async def read(reader: asyncio.StreamReader) -> Answer:
    """The next answer of a connection. Raises one of BROKEN where it ends before one is whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    status = int(head[0].split()[1])
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b""
        while length := int(await reader.readline(), 16):
            body += (await reader.readexactly(length + 2))[:-2]
        await reader.readline()
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return Answer(status, headers, body)


async def ask(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    source: str = HOME,
    timeout_s: float = 60.0,
) -> Answer:
    """One request on a connection of its own. Raises one of BROKEN, TimeoutError."""
    return await send(port, request(method, path, body, headers), source=source, timeout_s=timeout_s)


async def send(port: int, payload: bytes, *, source: str = HOME, timeout_s: float = 60.0, end: bool = False) -> Answer:
    """Any bytes, and the first answer to them. `end`: the client says that no more comes.

    Raises one of BROKEN (closed without an answer), TimeoutError.
    """
    began = time.perf_counter()
    async with asyncio.timeout(timeout_s):
        reader, writer = await connect(port, source)
        try:
            writer.write(payload)
            if end:
                writer.write_eof()
            with suppress(OSError):  # what was answered before it was read to the end is there all the same
                await writer.drain()
            answer = await read(reader)
        finally:
            await close(writer)
    return answer._replace(seconds=time.perf_counter() - began)


async def said(port: int, payload: bytes, **how: Any) -> Answer | None:
    """The same; None where the connection ended without an answer. Raises TimeoutError."""
    try:
        return await send(port, payload, **how)
    except BROKEN:
        return None


async def following(reader: asyncio.StreamReader, limit_s: float = 20.0) -> Answer | None:
    """The next answer of a connection; None where it ends without one. Raises TimeoutError."""
    try:
        async with asyncio.timeout(limit_s):
            return await read(reader)
    except BROKEN:
        return None


async def close(writer: asyncio.StreamWriter) -> None:
    """Ends a connection, whatever state it is in."""
    writer.close()
    with suppress(*BROKEN):
        await writer.wait_closed()


@dataclass
class Tally:
    """What a company of clients saw.

    statuses  HTTP status → answers;  seconds  of every 200
    lost      requests sent whole and not answered;  reset  connections that TCP accepted and that ended without one
    refused   connections that nobody accepted
    wrong     answers of 200 that are not the bytes expected;  bare  503 or 429 without a sound Retry-After
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    reset: int = 0
    refused: int = 0
    wrong: int = 0
    bare: int = 0

    @property
    def asked(self) -> int:
        """Requests that were sent whole."""
        return self.statuses.total() + self.lost

    @property
    def not_200(self) -> int:
        """Whatever was no 200."""
        return self.asked + self.refused - self.statuses[200]

    def count(self, answer: Answer, expected: bytes | None = None) -> None:
        """One answer."""
        self.statuses[answer.status] += 1
        if answer.status == 200:
            self.seconds.append(answer.seconds)
            self.wrong += expected is not None and answer.body != expected
        elif answer.status in (429, 503):
            self.bare += not 1 <= int(answer.headers.get("retry-after", "0")) <= 3600

    def __str__(self) -> str:
        """`200 × 310, 503 × 4, lost 0, reset 0`."""
        seen = ", ".join(f"{status} × {count}" for status, count in sorted(self.statuses.items()))
        return f"{seen or 'no answer'}, lost {self.lost}, reset {self.reset}"


@asynccontextmanager
async def company(
    port: int,
    clients: int,
    requests: Sequence[tuple[bytes, bytes | None]],
    *,
    kept: bool = True,
    source: str = HOME,
    pause_s: float = 0.0,
) -> AsyncIterator[Tally]:
    """Clients who each ask and wait for the answer, for as long as the block runs; then all are answered, or lost.

    requests  each one's bytes, and the body that a 200 has to have (None: any);  kept  one connection each, while it
    lasts; else one for each request. A client stops where nobody accepts its connection.
    """
    tally, over = Tally(), asyncio.Event()

    async def client(turn: int) -> None:
        stream: Stream | None = None
        answered = False  # on this connection
        while not over.is_set():
            payload, expected = requests[turn % len(requests)]
            turn += 1
            try:
                if stream is None or stream[0].at_eof():
                    stream, answered = await connect(port, source), False
            except OSError:
                tally.refused += 1
                break
            began, sent = time.perf_counter(), False
            try:
                stream[1].write(payload)
                await stream[1].drain()
                sent = True
                answer = await asyncio.wait_for(read(stream[0]), 90)
            except (*BROKEN, TimeoutError):
                tally.lost += sent
                tally.reset += not answered
                await close(stream[1])
                stream = None
                continue
            answered = True
            tally.count(answer._replace(seconds=time.perf_counter() - began), expected)
            if not kept or answer.headers.get("connection", "").lower() == "close":
                await close(stream[1])
                stream = None
            if pause_s or answer.status in (429, 503):
                await asyncio.sleep(pause_s or 0.05)
        if stream:
            await close(stream[1])

    asking = [asyncio.create_task(client(i)) for i in range(clients)]
    try:
        yield tally
    finally:
        over.set()
        await asyncio.gather(*asking)


async def together(count: int, work: Callable[[int], Awaitable[Any]], at_once: int = 16) -> list[Any]:
    """`work(0)` … `work(count - 1)`, so many at a time; their results in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(i: int) -> Any:
        async with gate:
            return await work(i)

    return await asyncio.gather(*(one(i) for i in range(count)))


def raise_open_files() -> int:
    """The soft limit of open files is made the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
