"""Three times what our server can do, for a minute: what it answers, how long the accepted wait, what memory does.

    python -m benchmarks.load [BUNDLE] [--times 3] [--secs 60] [--queue 128]

A server of ours on loopback, cache off. Its capacity is measured with a closed loop, then arrivals come at random
(Poisson) at `--times` of that, whatever it answers; latency counts from the scheduled arrival. Must hold: 200, 503 and
429 only, refusals with Retry-After; p99 of the accepted at most twice the queue bound (images it lets in × seconds an
image takes); memory flat; every image with its own pass. Written to benchmarks/results/overload.json. Exit code 1 when
something does not hold.

Knows nothing of how a server answers.
"""

import argparse
import asyncio
import io
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import machine
from benchmarks.own_server import OwnServer, ServerError, command, serving, void
from service.settings import embedded
from training.data.synthetic import street

PORT = 8202
RESULTS = Path(__file__).parent / "results"
_CAPACITY_CLIENTS, _CAPACITY_S = 8, 8.0
_OUTSTANDING = 1024  # arrivals beyond this are not sent, and counted
_FLAT = 0.05  # growth of memory that counts as flat, of what it was
_TIMEOUT_S = 90.0
_REFUSALS = (429, 503)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Seen:
    """What the client saw.

    accepted_s   seconds from scheduled arrival to the whole answer, of every 200
    statuses     HTTP status, or the error's name, → how many
    no_retry     refusals without a Retry-After of at least one second
    warned       200s with an X-Warning
    wall_s       from the first arrival to the last answer
    """

    accepted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    no_retry: int = 0
    warned: int = 0
    wall_s: float = 0.0

    def count(self, status: int, headers: dict[str, str], seconds: float) -> None:
        """One answer."""
        self.statuses[str(status)] += 1
        if status == 200:
            self.accepted_s.append(seconds)
            self.warned += "x-warning" in headers
        elif status in _REFUSALS:
            self.refused_s.append(seconds)
            retry = headers.get("retry-after", "")
            self.no_retry += not (retry.isdecimal() and int(retry) >= 1)


class Client:
    """Keep-alive connections to one loopback port, opened as needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Stream] = []

    async def post(self, payload: bytes) -> tuple[int, dict[str, str]]:
        """Status and headers of one answer, read to its end. Raises OSError, IncompleteReadError, ValueError."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(payload)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in head[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            await reader.readexactly(int(headers["content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection", "").lower() == "close":
            writer.close()
            await writer.wait_closed()
        else:
            self._idle.append((reader, writer))
        return int(head[0].split()[1]), headers

    async def close(self) -> None:
        """Every idle connection."""
        for _, writer in self._idle:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self._idle), return_exceptions=True)
        self._idle.clear()


def request(query: str, photo: bytes) -> bytes:
    """A whole HTTP request for one image's label map."""
    head = (
        f"POST /segment?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: image/png\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(photo)}\r\n\r\n"
    )
    return head.encode() + photo


def payloads(count: int = 24) -> list[bytes]:
    """Requests with different drawn streets, 320×320 JPEG."""
    made = []
    for seed in range(count):
        buffer = io.BytesIO()
        Image.fromarray(street((320, 320), seed=seed)).save(buffer, "JPEG", quality=90)
        made.append(request("format=png", buffer.getvalue()))
    return made


async def closed(client: Client, requests: list[bytes], clients: int, secs: float) -> Seen:
    """A few clients who each wait for their answer before they ask again; latency counts from the asking.

    Raises what `Client.post` raises.
    """
    seen, turn, began = Seen(), itertools.count(), time.perf_counter()

    async def one() -> None:
        while (asked := time.perf_counter()) < began + secs:
            status, headers = await client.post(requests[next(turn) % len(requests)])
            seen.count(status, headers, time.perf_counter() - asked)

    await asyncio.gather(*(one() for _ in range(clients)))
    seen.wall_s = time.perf_counter() - began
    return seen


async def capacity(client: Client, requests: list[bytes], secs: float = _CAPACITY_S) -> float:
    """Images a second with a few clients that each wait for their answer. Raises ServerError on anything but 200."""
    seen = await closed(client, requests, _CAPACITY_CLIENTS, secs)
    if set(seen.statuses) != {"200"}:
        raise ServerError(f"statuses {dict(seen.statuses)} where nobody else asks")
    return len(seen.accepted_s) / seen.wall_s


async def flood(client: Client, requests: list[bytes], rate: float, secs: float, seed: int = 0) -> Seen:
    """Arrivals at `rate` a second for `secs`, whatever is answered; waits for the last answer."""
    seen, draw = Seen(), random.Random(seed)
    running: set[asyncio.Task[None]] = set()

    async def one(payload: bytes, scheduled: float) -> None:
        try:
            status, headers = await asyncio.wait_for(client.post(payload), _TIMEOUT_S)
        except (OSError, asyncio.IncompleteReadError, ValueError, KeyError, TimeoutError) as error:
            seen.statuses[type(error).__name__] += 1
        else:
            seen.count(status, headers, time.perf_counter() - scheduled)

    began = scheduled = time.perf_counter()
    sent = 0
    while (scheduled := scheduled + draw.expovariate(rate)) < began + secs:
        await asyncio.sleep(max(0.0, scheduled - time.perf_counter()))
        if len(running) >= _OUTSTANDING:
            seen.statuses["not sent"] += 1
            continue
        task = asyncio.create_task(one(requests[sent % len(requests)], scheduled))
        running.add(task)
        task.add_done_callback(running.discard)
        sent += 1
    await asyncio.gather(*running)
    seen.wall_s = time.perf_counter() - began
    return seen


async def memory(pid: int, every_s: float = 1.0) -> list[float]:
    """Resident MB of a process tree, sampled until cancelled; then what was sampled."""
    samples: list[float] = []
    try:
        while True:
            samples.append(await asyncio.to_thread(machine.rss_mb, pid))
            await asyncio.sleep(every_s)
    except asyncio.CancelledError:
        return samples


def growth(samples: list[float]) -> float:
    """Last quarter over second quarter, minus 1: the first is the queue filling for the first time."""
    quarter = max(1, len(samples) // 4)
    return statistics.median(samples[-quarter:]) / statistics.median(samples[quarter : 2 * quarter] or samples) - 1


def judged(seen: Seen, bound_s: float, samples: list[float], passes: str | None) -> dict[str, bool]:
    """What must hold → whether it does."""
    p99 = float(np.percentile(seen.accepted_s, 99)) if seen.accepted_s else float("inf")
    allowed = {"200", *map(str, _REFUSALS)}
    return {
        "only 200, 503 and 429": set(seen.statuses) <= allowed,
        "every refusal has Retry-After": seen.no_retry == 0,
        "accepted p99 within twice the queue bound": p99 <= 2 * bound_s,
        "memory flat": growth(samples) <= _FLAT,
        "a pass for every image": passes is None,
    }


async def overload(server: OwnServer, times: float, secs: float, queue: int) -> dict[str, Any]:
    """The whole test on a running server; its figures."""
    client, requests = Client(server.port), payloads()
    try:
        per_s = await capacity(client, requests)
        idle_mb = machine.rss_mb(server.pid)
        sampling = asyncio.create_task(memory(server.pid))
        seen = await flood(client, requests, times * per_s, secs)
        sampling.cancel()
        samples = await sampling
    finally:
        await client.close()
    bound_s = queue / per_s
    quantiles = [round(float(q), 3) for q in np.percentile(seen.accepted_s or [0.0], (50, 99, 100))]
    refused_ms = [round(float(q) * 1000, 1) for q in np.percentile(seen.refused_s or [0.0], (50, 99))]
    return {
        "capacity_per_s": round(per_s, 2),
        "offered_per_s": round(times * per_s, 2),
        "secs": secs,
        "wall_s": round(seen.wall_s, 1),
        "statuses": dict(seen.statuses),
        "accepted_per_s": round(len(seen.accepted_s) / seen.wall_s, 2),
        "accepted_s": dict(zip(("p50", "p99", "max"), quantiles, strict=True)),
        "refused_ms": dict(zip(("p50", "p99"), refused_ms, strict=True)),
        "queue_bound": {"images": queue, "seconds": round(bound_s, 3)},
        "rss_mb": {"before": round(idle_mb), "max": round(max(samples)), "end": round(samples[-1])},
        "holds": judged(seen, bound_s, samples, void(server.counters(), len(seen.accepted_s))),
    }


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", nargs="?", type=Path, help="default: the embedded one")
    parser.add_argument("--times", type=float, default=3.0, help="of the capacity")
    parser.add_argument("--secs", type=float, default=60.0)
    parser.add_argument("--queue", type=int, default=128, help="TESSERA_MAX_QUEUE_SIZE of the server")
    parser.add_argument("--tessera", type=Path, help="our command; default: that of `make serve`")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"), help="for the server's log")
    parser.add_argument("--no-keep", action="store_true", help="write nothing to benchmarks/results")
    given = parser.parse_args()
    bundle = (given.bundle or embedded()[0]).resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    env = {"TESSERA_CACHE_BYTES": "0", "TESSERA_MAX_QUEUE_SIZE": str(given.queue)}
    env["TESSERA_STATE"] = str((given.work / "state").resolve())
    tessera = command(given.tessera).absolute()
    try:
        with serving(bundle, given.work / "overload.server.log", port=PORT, env=env, tessera=tessera) as server:
            found = asyncio.run(overload(server, given.times, given.secs, given.queue))
    except ServerError as error:
        sys.exit(str(error))
    print(json.dumps(found, indent=1))
    if not given.no_keep:
        RESULTS.mkdir(exist_ok=True)
        kept = {"what": "python -m benchmarks.load", "bundle": bundle.name, "machine": machine.describe(), **found}
        (RESULTS / "overload.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if failed := [what for what, holds in found["holds"].items() if not holds]:
        sys.exit(f"does not hold: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
