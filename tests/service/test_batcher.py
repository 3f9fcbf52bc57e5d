"""Batches: order, shapes, budget, cancellation. Deterministic: the runtime runs when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from models.bundle import Encoded
from service.batcher import Batched, Batcher


class Gate:
    """An encoder that holds until `open`; scores are each image's first pixel, so a mix-up shows."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []
        self.codes: list[bool] = []

    def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
        assert self.open.wait(10)
        self.batches.append([int(image[0, 0, 0]) for image in pixels])
        self.codes.append(code)
        scores = pixels[:, :1, :1, :1].transpose(0, 3, 1, 2).astype(np.float32)
        return Encoded(scores, scores if code else None)


def picture(i: int, side: int = 8) -> Any:
    return np.full((side, side, 3), i, np.uint8)


def play(batcher: Batcher, scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        serving = asyncio.create_task(batcher.serve())
        try:
            async with asyncio.timeout(10):
                return await scenario()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    return asyncio.run(whole())


async def queued(batcher: Batcher, pictures: list[Any]) -> list[asyncio.Task[Batched]]:
    """One image is running (held by the gate), the rest wait in order."""
    tasks = []
    for pixels in pictures:
        tasks.append(asyncio.create_task(batcher.submit(pixels)))
        await asyncio.sleep(0.005)
    return tasks


def test_a_lone_image_does_not_wait_for_company() -> None:
    gate = Gate()
    gate.open.set()
    batcher = Batcher(gate, max_batch_size=8)
    got = play(batcher, lambda: batcher.submit(picture(7)))
    assert got.scores[0, 0, 0] == 7
    assert got.queue_s < 0.5


def test_first_in_first_out_and_one_at_a_time_without_batching() -> None:
    gate = Gate()
    batcher = Batcher(gate)

    async def scenario() -> list[Batched]:
        tasks = await queued(batcher, [picture(i) for i in range(6)])
        assert (batcher.running, batcher.waiting) == (1, 5)
        gate.open.set()
        return await asyncio.gather(*tasks)

    answers = play(batcher, scenario)
    assert [a.scores[0, 0, 0] for a in answers] == list(range(6))
    assert gate.batches == [[i] for i in range(6)]


def test_what_is_queued_goes_together_up_to_the_size() -> None:
    gate = Gate()
    sizes: list[int] = []
    batcher = Batcher(gate, max_batch_size=4, on_batch=sizes.append)

    async def scenario() -> list[Batched]:
        tasks = await queued(batcher, [picture(i) for i in range(8)])
        gate.open.set()
        return await asyncio.gather(*tasks)

    answers = play(batcher, scenario)
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert sizes == [1, 4, 3]
    assert [a.scores[0, 0, 0] for a in answers] == list(range(8))


def test_only_equal_shapes_go_together_and_nobody_loses_a_turn() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch_size=4)

    async def scenario() -> None:
        pictures = [picture(0), picture(1), picture(2, side=16), picture(3), picture(4, side=16)]
        tasks = await queued(batcher, pictures)
        gate.open.set()
        await asyncio.gather(*tasks)

    play(batcher, scenario)
    assert gate.batches == [[0], [1, 3], [2, 4]]


def test_the_pixel_budget_bounds_a_batch_but_never_refuses_one_image() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch_size=8, max_batch_mpx=2.5 * 64 / 1e6)

    async def scenario() -> None:
        tasks = await queued(batcher, [picture(0), *(picture(i) for i in range(1, 6)), picture(9, side=32)])
        gate.open.set()
        await asyncio.gather(*tasks)

    play(batcher, scenario)
    assert gate.batches == [[0], [1, 2], [3, 4], [5], [9]]


def test_the_code_is_fetched_only_when_someone_asks() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch_size=4)

    async def scenario() -> list[Batched]:
        first = asyncio.create_task(batcher.submit(picture(0)))
        await asyncio.sleep(0.005)
        pair = [asyncio.create_task(batcher.submit(picture(i), code=i == 2)) for i in (1, 2)]
        await asyncio.sleep(0.005)
        gate.open.set()
        return list(await asyncio.gather(first, *pair))

    answers = play(batcher, scenario)
    assert gate.codes == [False, True]
    assert answers[0].code is None
    assert answers[2].code is not None


def test_who_gives_up_while_waiting_never_runs() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch_size=4)

    async def scenario() -> None:
        tasks = await queued(batcher, [picture(i) for i in range(4)])
        tasks[2].cancel()
        await asyncio.gather(tasks[2], return_exceptions=True)
        assert batcher.waiting == 2
        tasks[0].cancel()  # already running: it runs to its end, for nobody
        gate.open.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    play(batcher, scenario)
    assert gate.batches == [[0], [1, 3]]


def test_an_error_reaches_its_batch_and_the_next_one_runs() -> None:
    calls = 0

    def fails_once(pixels: Any, *, code: bool = False) -> Encoded:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("out of memory")
        return Encoded(np.zeros((len(pixels), 1, 1, 1), np.float32))

    batcher = Batcher(fails_once)

    async def scenario() -> Batched:
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.submit(picture(1))
        return await batcher.submit(picture(2))

    assert play(batcher, scenario).scores.shape == (1, 1, 1)
    assert batcher.running == 0
