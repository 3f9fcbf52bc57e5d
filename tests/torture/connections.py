"""Tests 4, 9, A, B and E: what a hostile client can do with connections: slow, endless, deaf, many, gone.

Knows nothing of what is asked on them.
"""

import asyncio
import itertools
from contextlib import suppress

import numpy as np
from PIL import Image

from tests.models.io.drawn import packed
from tests.torture.client import (
    BROKEN,
    HOME,
    NEIGHBOR,
    THIRD,
    Stream,
    ask,
    close,
    company,
    connect,
    following,
    raise_open_files,
    read,
    request,
    said,
    together,
)
from tests.torture.pictures import PNG
from tests.torture.process import plain, serving
from tests.torture.verdict import Found, Place, torture
from tests.torture.watching import memory, probing

SEGMENT = "/segment?format=png"
PHOTO = request("POST", SEGMENT, PNG)


@torture("4", "40 slow heads and bodies of a byte a second: closed by the deadline, 50 other clients see no error")
async def slow_clients(place: Place, found: Found) -> None:
    head_s, body_s = 2.0, 3.0
    async with plain(place.bundle, place.folder("state"), PNG, header_timeout_s=head_s, body_timeout_s=body_s) as (
        server,
        right,
    ):

        async def slow(i: int) -> None:
            """Heads and bodies by turns, the heads of every other one on a connection that was used before."""
            of_body, used = i % 2 == 1, i % 4 == 0
            reader, writer = await connect(server.port)
            if used:
                writer.write(PHOTO)
                await read(reader)
            writer.write(b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            trickle = itertools.repeat(b"X") if not of_body else itertools.chain(
                [b"Content-Length: 1000\r\n\r\n"], itertools.repeat(b"x")
            )  # fmt: skip
            loop = asyncio.get_running_loop()
            began = loop.time()
            with suppress(*BROKEN):
                for piece in trickle:
                    writer.write(piece)
                    await writer.drain()
                    if reader.at_eof() or loop.time() > began + 15:
                        break
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            if not await reader.read(4096):
                                break
            took, limit = loop.time() - began, (body_s if of_body else head_s)
            what = "body" if of_body else "head on a used connection" if used else "head"
            found.must(took <= limit + 4.0, f"a slow {what} was heard for {took:.1f} s, the deadline is {limit:g} s")
            await close(writer)

        async with company(server.port, 50, [(PHOTO, right)], pause_s=0.2) as others:
            await together(40, slow, at_once=40)
        found.must(not others.not_200 and not others.wrong, f"others: {others}, {others.wrong} wrong", others.asked)
        found.figure(f"others: {others}")


@torture("9", "clients that leave while they wait: their work is dropped and counted")
async def left_while_waiting(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state"), engine="slow", cache_bytes=0) as server:
        before = await server.counters()
        streams = [await connect(server.port) for _ in range(40)]
        for _, writer in streams:
            writer.write(PHOTO)
        await asyncio.sleep(0.4)  # a few are done or in the network
        await asyncio.gather(*(close(writer) for _, writer in streams[:30]))
        stayed = [await following(reader) for reader, _ in streams[30:]]
        await asyncio.gather(*(close(writer) for _, writer in streams[30:]))
        await asyncio.sleep(0.5)
        after = await server.counters()

        def more(name: str) -> float:
            return after.get(name, 0) - before.get(name, 0)

        passes, gone = more("tessera_batch_images_sum"), more('tessera_refused_total{reason="client_left"}')
        found.must(all(a is not None and a.status == 200 for a in stayed), "who stayed was not answered", len(stayed))
        found.must(passes <= 25, f"the network ran {passes:.0f} times for 10 clients who stayed")
        found.must(20 <= gone <= 30, f"{gone:.0f} of 30 counted as gone")
        found.must(after.get("tessera_requests_waiting", 0) == 0, "something still waits")
        found.figure(f"{passes:.0f} passes, {gone:.0f} of 30 counted as gone")


@torture("A", "a head without end for 10 s, on one connection and on four: /livez < 100 ms, RSS + < 20 MB")
async def endless_heads(place: Place, found: Found) -> None:
    kinds = {"fields": b"X-Long: " + b"a" * 1000 + b"\r\n", "one field": b"a" * 4096, "the request line": b"a" * 4096}
    seconds = 3.0 if place.quick else 10.0
    async with plain(place.bundle, place.folder("state"), PNG) as (server, _):
        for name, connections in (("fields", 1), ("fields", 4), ("one field", 4), ("the request line", 4)):

            async def endless(_: int, name: str = name) -> None:
                loop = asyncio.get_running_loop()
                over = loop.time() + seconds
                while loop.time() < over:
                    reader, writer = await connect(server.port)
                    writer.write(
                        b"GET /" if name == "the request line" else b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
                    )
                    with suppress(*BROKEN, TimeoutError):
                        while loop.time() < over and not reader.at_eof():
                            writer.write(kinds[name])
                            async with asyncio.timeout(over - loop.time()):
                                await writer.drain()
                            await asyncio.sleep(0)
                    await close(writer)
                    await asyncio.sleep(0.01)

            with probing(server.port) as live, memory(server) as held:
                await together(connections, endless)
            what = f"{connections} × {name}"
            found.figure(f"{what}: /livez {live.worst_ms:.0f} ms, + {held.rise_mb:.0f} MB")
            found.must(live.only("200") and live.worst_ms < 100, f"{what}: /livez {dict(live.statuses)}, "
                       f"worst {live.worst_ms:.0f} ms")  # fmt: skip
            found.must(held.rise_mb < 20, f"{what}: {held.rise_mb:.0f} MB were held")


def _noise(side: int = 256) -> bytes:
    """A PNG of about 200 kB."""
    return packed(Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)), "PNG")


@torture("B", "50 clients that send requests of 200 kB and read nothing: RSS + < 150 MB, back within 20 MB")
async def unread_answers(place: Place, found: Found) -> None:
    payload = request("POST", "/segment?format=npy", _noise())
    seconds = 4.0 if place.quick else 20.0
    async with plain(place.bundle, place.folder("state"), PNG) as (server, right):
        await together(60, lambda _: ask(server.port, "POST", "/segment?format=npy", _noise()))
        await asyncio.sleep(1.0)
        idle = server.rss_mb()
        sent = 0

        async def deaf(_: int) -> Stream:
            nonlocal sent
            reader, writer = await connect(server.port, NEIGHBOR)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            with suppress(*BROKEN, TimeoutError):
                async with asyncio.timeout(seconds):
                    while True:
                        writer.write(payload)
                        await writer.drain()
                        sent += 1
            return reader, writer

        with memory(server) as held, probing(server.port) as live:
            streams = await together(50, deaf, at_once=50)
            others = await ask(server.port, "POST", SEGMENT, PNG, source=THIRD)
            await asyncio.sleep(30.0)
        back = server.rss_mb() - idle
        for _, writer in streams:
            writer.transport.abort()
        rise = max(held.samples) - idle
        found.figure(f"{sent} requests of {len(payload) / 1000:.0f} kB: + {rise:.0f} MB, 30 s later {back:+.0f} MB")
        found.must(sent >= 50, f"only {sent} requests were taken", 50)
        found.must(rise < 150, f"memory rose by {rise:.0f} MB")
        found.must(back < 20, f"30 s later {back:.0f} MB are still held")
        found.must(others.body == right, f"another client: {others.status}")
        found.must(live.only("200"), f"/livez: {dict(live.statuses)}")


@torture("E", "5,000 idle connections from 127.0.0.2: probes 200, clients from elsewhere are served")
async def idle_connections(place: Place, found: Found) -> None:
    count = min(5000, raise_open_files() - 500)
    async with plain(place.bundle, place.folder("state"), PNG) as (server, right):
        writers: list[asyncio.StreamWriter] = []

        async def one(_: int) -> None:
            with suppress(*BROKEN, TimeoutError):
                async with asyncio.timeout(10):
                    writers.append((await connect(server.port, NEIGHBOR))[1])

        await together(count, one, at_once=200)
        found.must(len(writers) >= count // 2, f"only {len(writers)} of {count} connections were accepted", count)
        for source in (NEIGHBOR, HOME, THIRD):
            for path in ("/livez", "/readyz", "/metrics"):
                answer = await said(server.port, request("GET", path), source=source, timeout_s=10)
                found.must(
                    answer is not None and answer.status == 200, f"{path} from {source}: {answer and answer.status}"
                )
        for source in (HOME, THIRD):
            async with company(server.port, 8, [(PHOTO, right)], kept=False, source=source) as others:
                await asyncio.sleep(2.0)
            found.must(not others.not_200 and not others.wrong, f"photos from {source}: {others}", others.asked)
        over = await said(server.port, PHOTO, source=NEIGHBOR, timeout_s=10)
        polite = over is not None and (over.status == 200 or (over.status == 503 and over.is_problem))
        found.must(polite, f"a photo from 127.0.0.2: {over and over.status}")
        found.figure(f"{len(writers)} connections, {server.rss_mb():.0f} MB")
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(1.0)
        again = await said(server.port, PHOTO, source=NEIGHBOR, timeout_s=10)
        found.must(again is not None and again.body == right, f"127.0.0.2 afterwards: {again and again.status}")
