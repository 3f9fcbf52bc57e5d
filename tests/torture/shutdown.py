"""Tests 12, 13, 17 and H: told to go, killed, started where it cannot serve; who loses an answer by it.

Lost: a request sent whole and not answered. Reset: a connection that TCP accepted and that ended without an answer.

Knows nothing of how a server ends.
"""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from benchmarks import machine
from tests.torture.client import BROKEN, Tally, close, company, connect, request, said, together
from tests.torture.pictures import PNG
from tests.torture.process import Server, ready, serving, start
from tests.torture.verdict import Found, Place, torture

PHOTO = request("POST", "/segment?format=png", PNG)
NEW = request("POST", "/segment?format=png", PNG, {"Connection": "close"})
_LAME_DUCK_S = 2
_DRAIN_S = 25


async def _under_load(server: Server, *, obstinate: bool) -> tuple[float | None, int | None, Tally, Tally, list[float]]:
    """SIGTERM under load: seconds to its end, exit code, what clients saw who keep their connection and who do not,
    and the seconds after which /readyz was 503."""
    stuck = []
    if obstinate:
        _, never_done = await connect(server.port)
        never_done.write(b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n" + PNG[:50])
        _, never_reads = await connect(server.port)
        never_reads.transport.pause_reading()  # type: ignore[attr-defined]
        never_reads.write(request("POST", "/segment?format=npy", PNG) * 400)
        stuck = [never_done, never_reads]
    off: list[float] = []
    async with (
        company(server.port, 12, [(PHOTO, None)]) as kept,
        company(server.port, 6, [(NEW, None)], kept=False) as new,
    ):
        await asyncio.sleep(1.0)
        began = time.monotonic()
        server.terminate()

        async def readiness() -> None:
            while not off and server.process.poll() is None:
                answer = None
                with suppress(*BROKEN, TimeoutError):
                    answer = await server.ask("GET", "/readyz", timeout_s=5)
                if answer is not None and answer.status == 503:
                    off.append(time.monotonic() - began)
                await asyncio.sleep(0.02)

        asking = asyncio.create_task(readiness())
        code = await server.ended(_DRAIN_S + 12)
        took = time.monotonic() - began if code is not None else None
        await asking if code is not None else asking.cancel()
    for writer in stuck:
        writer.transport.abort()
    return took, code, kept, new, off


async def _ends_well(found: Found, server: Server, *, obstinate: bool, limit_s: float) -> float:
    took, code, kept, new, off = await _under_load(server, obstinate=obstinate)
    with_whom = "with a client that never ends its body and one that never reads" if obstinate else "under load"
    said_so = f"{took:.1f} s" if took is not None else "never"
    found.must(took is not None and took <= limit_s and code == 0, f"{with_whom}: ended {said_so}, exit code {code}")
    for name, tally in (("kept connections", kept), ("new connections", new)):
        found.must(not tally.lost and not tally.reset, f"{with_whom}, {name}: {tally}", tally.asked)
        found.must(set(tally.statuses) <= {200, 503}, f"{with_whom}, {name}: {tally}", 0)
    found.must(bool(off) and off[0] < 1.0, f"{with_whom}: /readyz 503 after {off or 'never'}")
    return took or float("inf")


@torture("12", "SIGTERM under load: /readyz 503 at once, all that was accepted is answered, exit ≤ 25 s")
async def told_to_go(place: Place, found: Found) -> None:
    for engine in (None, "slow"):
        server = start([place.bundle], place.folder("state"), engine=engine, lame_duck_s=_LAME_DUCK_S, cache_bytes=0)
        try:
            await ready(server)
            took = await _ends_well(found, server, obstinate=False, limit_s=25.0)
            found.figure(f"{'a network of 0.1 s' if engine else 'a fast network'}: {took:.1f} s")
        finally:
            server.kill()


@torture("17", "SIGTERM × 20 under load beside an unfinished body and an unread answer: ≤ 26 s, 0 reset, 0 lost",
         limit_s=700.0)  # fmt: skip
async def restarts(place: Place, found: Found) -> None:
    took: list[float] = []

    async def one(i: int) -> None:
        server = start([place.bundle], place.folder("state"), lame_duck_s=_LAME_DUCK_S, drain_s=_DRAIN_S)
        try:
            await ready(server)
            took.append(await _ends_well(found, server, obstinate=True, limit_s=_DRAIN_S + 1.0))
        finally:
            server.kill()

    await together(place.rounds(20), one, at_once=2)
    found.figure(f"{len(took)} × SIGTERM: {min(took):.1f} to {max(took):.1f} s")


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


@torture("13", "kill -9 of the process and of its children: a supervisor starts it again, N restarts in M minutes stop")
async def killed(place: Place, found: Found) -> None:
    supervised = start([place.bundle], place.folder("state"), "--supervise", lame_duck_s=0)
    try:
        await ready(supervised)
        for _ in range(2):
            serving_now = _serving_process(supervised)
            if not found.must(serving_now is not None, "no process below the supervisor serves"):
                return
            assert serving_now is not None
            os.kill(serving_now, signal.SIGKILL)
            began = time.monotonic()
            await asyncio.sleep(0.1)
            await ready(supervised, 30)
            found.figure(f"serves again after {time.monotonic() - began:.1f} s")
            answer = await said(supervised.port, PHOTO)
            found.must(answer is not None and answer.status == 200, f"after a restart: {answer and answer.status}")
        supervised.terminate()
        code = await supervised.ended(35)
        found.must(code == 0, f"SIGTERM to the supervisor ends in {code}")
    finally:
        supervised.kill()
    endless = start([place.bundle], place.folder("state"), "--supervise", lame_duck_s=0)
    try:
        await ready(endless)
        kills = 0
        for _ in range(600):
            child = _serving_process(endless)
            if endless.process.poll() is not None:
                break
            if child is not None and kills < 40:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                kills += 1
            await asyncio.sleep(0.2)
        code = endless.process.poll()
        found.must(code not in (None, 0), f"after {kills} kills the supervisor still starts it anew (exit code {code})")
        found.figure(f"gives up after {kills} kills, exit code {code}")
    finally:
        endless.kill()


def _serving_process(supervised: Server) -> int | None:
    """The process below the supervisor that holds the port: the one with the most memory."""
    children = [child for child in machine.children(supervised.pid) if "serve" in _name(child)]
    return max(children, key=machine.rss_mb, default=None)


@torture("H", "a start that cannot serve: exit within 10 s with a sentence; 2 for a setting or option, 1 for the rest")
async def bad_starts(place: Place, found: Found) -> None:
    empty = place.folder("empty")
    loop_back = await _taken()
    port, tiny = str(loop_back.sockets[0].getsockname()[1]), place.bundle
    cases: dict[str, tuple[Path, dict[str, str], tuple[str, ...], int]] = {
        "a setting that is none": (tiny, {"TESSERA_TREADS": "1"}, (), 2),
        "a setting out of range": (tiny, {"TESSERA_MAX_MPX": "-1"}, (), 2),
        "an option that is none": (tiny, {}, ("--prot", "1"), 2),
        "an option out of range": (tiny, {}, ("--port", "70000"), 2),
        "a bundle that is not there": (empty / "absent", {}, (), 2),
        "an empty bundle": (empty, {}, (), 1),
        "a port that is taken": (tiny, {}, ("--port", port), 1),
        "an address that is not here": (tiny, {"TESSERA_KEYS": "a=b"}, ("--host", "192.0.2.1"), 1),
    }
    for name, (bundle, environment, options, want) in cases.items():
        server = start([bundle], place.folder("state"), *options, environment=environment)
        code = await server.ended(10.0)
        server.kill()
        await asyncio.sleep(0.1)
        found.must(code == want, f"{name}: {'still runs' if code is None else f'exit code {code}'}, not {want}")
        spoke = any(len(line.split()) > 4 for line in server.log)
        found.must(spoke and not any("Traceback" in line for line in server.log), f"{name}: says {server.log[-1:]}")
    loop_back.close()
    async with serving([place.bundle], place.folder("state")) as server:
        found.must((await server.ask("GET", "/livez")).status == 200, "and a sound start does not serve")


async def _taken() -> asyncio.Server:
    async def nobody(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await close(writer)

    return await asyncio.start_server(nobody, "127.0.0.1", 0)
