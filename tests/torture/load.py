"""Tests 11, 16 and 18 to 20: more than fits, for long, in every shape; and that nobody gets another's answer.

Knows nothing of how requests wait.
"""

import asyncio
import io
import math
import random

import numpy as np
from PIL import Image

from benchmarks import load
from models.io.encode import encode
from service.settings import embedded
from tests.models.io.drawn import packed, tiff
from tests.tiny import COLORS
from tests.torture import doubles
from tests.torture.client import BROKEN, Tally, ask, close, connect, read, request, together
from tests.torture.process import Server, serving
from tests.torture.verdict import Found, Place, torture
from tests.torture.watching import memory, milliseconds
from training.data.synthetic import street

_QUEUE = 128


@torture("11", "3 × capacity for 60 s: only 200, 503 and 429 with Retry-After, the queue's bound kept, memory flat")
async def three_times_capacity(place: Place, found: Found) -> None:
    state = place.folder("state")
    async with serving(embedded()[:1], state, cache_bytes=0, max_queue_size=_QUEUE) as server:
        client, requests = load.Client(server.port), load.payloads()
        per_s = await load.capacity(client, requests)
        with memory(server, 0.5) as held:
            seen = await load.flood(client, requests, 3 * per_s, 6.0 if place.quick else 60.0)
        await client.close()
        holds = load.judged(seen, _QUEUE / per_s, held.samples, None)
        for what, so in holds.items():
            if what != "a pass for every image":
                found.must(so, f"not so: {what}; {dict(seen.statuses)}", 0)
        found.tried += sum(seen.statuses.values())
        p99 = milliseconds(seen.accepted_s, 0.99) / 1000
        found.figure(
            f"capacity {per_s:.0f} images/s", ", ".join(f"{s} × {n}" for s, n in sorted(seen.statuses.items())),
            f"p99 {p99:.2f} s (bound {2 * _QUEUE / per_s:.2f})", f"memory {100 * load.growth(held.samples):+.1f} %",
        )  # fmt: skip


class Shapes:
    """Photos of random shapes and formats, with random options, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._street = street((900, 1200), seed=seed)

    def request(self) -> bytes:
        """The next one, as the bytes of a request."""
        chance = self._chance
        height, width = (int(math.exp(chance.uniform(math.log(16), math.log(880)))) for _ in range(2))
        top, left = chance.randrange(900 - height), chance.randrange(1200 - width)
        photo = np.ascontiguousarray(self._street[top : top + height, left : left + width])
        image = Image.fromarray(photo)
        kind = chance.choice(["JPEG", "JPEG", "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
        if kind == "TIFF":
            data = tiff(photo, compression=chance.choice(["zlib", "lzw", None]), photometric="rgb")
        elif kind == "GIF":
            data = packed(image.quantize(64), "GIF")
        else:
            data = packed(image, kind)
        query = f"format={chance.choice(['json', 'png', 'overlay', 'color', 'npy'])}"
        query += f"&crf={chance.choices(['false', 'fast', 'true'], (7, 2, 1))[0]}"
        if chance.random() < 0.2:
            query += f"&k={chance.randint(2, 5)}"
        if chance.random() < 0.05:
            data = data[: chance.randrange(len(data))]  # and some are damaged
        return request("POST", f"/segment?{query}", data)


@torture("16", "soak of random shapes, formats and CRF: memory of the last third within 5 % of the second", long=True)
async def soak(place: Place, found: Found) -> None:
    seconds = 20.0 if place.quick else place.soak_s
    # A small cache and a small house: both are full within the first third, as in the months to come.
    async with serving(embedded()[:1], place.folder("state"), cache_bytes=2**23, max_queue_size=16) as server:
        tally, over = Tally(), asyncio.get_running_loop().time() + seconds

        async def client(seed: int) -> None:
            shapes = Shapes(seed)
            while asyncio.get_running_loop().time() < over:
                payload = await asyncio.to_thread(shapes.request)
                try:
                    reader, writer = await connect(server.port)
                    writer.write(payload)
                    tally.count(await asyncio.wait_for(read(reader), 90))
                    await close(writer)
                except (*BROKEN, TimeoutError):
                    tally.lost += 1

        with memory(server, max(0.5, seconds / 600)) as held:
            await together(6, client)
        odd = {status: count for status, count in tally.statuses.items() if status not in (200, 400, 429, 503)}
        found.must(
            not odd and not tally.lost and not tally.bare, f"{tally}, {tally.bare} without Retry-After", tally.asked
        )
        found.must(tally.statuses[400] <= 0.06 * tally.asked, f"{tally.statuses[400]} × 400, where 5 % are damaged")
        found.must(abs(held.drift) <= 0.05 or place.quick, f"memory of the last third {100 * held.drift:+.1f} %")
        found.figure(f"{seconds:.0f} s", str(tally), f"memory {held.samples[0]:.0f} → {held.samples[-1]:.0f} MB, "
                     f"last third {100 * held.drift:+.1f} %")  # fmt: skip


def _one_color(name: str, height: int, width: int) -> bytes:
    return encode(np.full((height, width, 3), COLORS[name], np.uint8), "png")


@torture("18", "one low priority beside a flood of high ones: waits no longer than its steps in seconds")
async def priorities(place: Place, found: Found) -> None:
    steps = 3
    async with serving(
        [place.bundle], place.folder("state"), engine="slow", cache_bytes=0, max_queue_size=64
    ) as server:
        photo = _one_color("red", 64, 64)
        over = asyncio.get_running_loop().time() + 14.0

        async def flood(_: int) -> int:
            asked = 0
            while asyncio.get_running_loop().time() < over:
                await ask(server.port, "POST", f"/segment?priority={steps}", photo)
                asked += 1
            return asked

        async def low(i: int) -> float:
            await asyncio.sleep(1.0 + i)
            return (await ask(server.port, "POST", "/segment?priority=0", photo)).seconds

        many, waits = await asyncio.gather(together(8, flood), together(4, low))
        bound = steps + 8 * doubles.SLOW_S * 2 + 1.0
        for wait in waits:
            found.must(wait <= bound, f"a request of priority 0 waited {wait:.1f} s beside a flood of {steps}")
        found.must(max(waits) > 8 * doubles.SLOW_S, f"nothing stood before it: {max(waits):.2f} s")
        found.figure(f"beside {sum(many)} requests: " + ", ".join(f"{wait:.1f} s" for wait in waits))


@torture("19", "64 clients with one image at once: one pass of the network, one answer for all")
async def herd(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state"), engine="slow") as server:
        for round_ in range(3):
            before = (await server.counters()).get("tessera_batch_images_sum", 0)
            photo = _one_color("green", 40 + round_, 64)
            answers = await together(64, lambda _, p=photo: ask(server.port, "POST", "/segment?format=png", p), 64)
            passes = (await server.counters())["tessera_batch_images_sum"] - before
            same = {answer.body for answer in answers if answer.status == 200}
            found.must(all(a.status == 200 for a in answers) and len(same) == 1, "not one answer for all", 64)
            found.must(passes == 1, f"{passes:.0f} passes for one image")


async def everybodys_own(server: Server, found: Found, count: int) -> None:
    """Pictures of one color each, in many shapes at once: every answer has its own shape and its own cluster."""
    names = list(COLORS)
    chance = random.Random(0)
    asked = [
        (chance.choice(names), chance.choice((24, 40, 64, 90)), chance.choice((24, 48, 64, 130))) for _ in range(count)
    ]

    async def one(i: int) -> None:
        name, height, width = asked[i]
        answer = await ask(server.port, "POST", "/segment?format=npy", _one_color(name, height, width))
        if found.must(answer.status == 200, f"{name} {height}×{width}: {answer.status} {answer.body[:100]!r}"):
            labels = np.load(io.BytesIO(answer.body))
            own = labels.shape == (height, width) and bool((labels == names.index(name)).all())
            found.must(own, f"{name} {height}×{width}: somebody else's answer", 0)

    await together(count, one, at_once=32)


@torture("20", "inputs of many lengths in one queue, batches of 8: none fails, no rows mixed up")
async def lengths(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state"), engine="company", cache_bytes=0) as server:
        await everybodys_own(server, found, place.rounds(600))
        counters = await server.counters()
        batches, images = counters["tessera_batch_images_count"], counters["tessera_batch_images_sum"]
        found.must(place.quick or images / batches > 1.2, f"{images / batches:.2f} images a batch: nothing was batched")
        found.figure(f"{images / batches:.2f} images a batch")
