"""Deadlines in the batcher: what is late never runs, what must be late is refused. The clock is the test's."""

import asyncio
import threading
from typing import Any

import pytest

from models.inference import Prediction
from service.errors import Busy, DeadlinePassed
from service.repository.served_model import NetworkBatcher
from tests.service.fakes import Clock, Gate, echo, held, picture, play, queued, until


def test_a_deadline_that_passed_in_the_queue_is_never_run() -> None:
    gate, clock = Gate(), Clock()
    batcher = NetworkBatcher(gate, max_batch_size=4, clock=clock)

    async def scenario() -> None:
        running = await held(batcher)
        late = await queued(batcher, [picture(1), picture(2)], deadline=105.0)
        others = [*await queued(batcher, [picture(3)], deadline=105.1), *await queued(batcher, [picture(4)])]
        clock.now = 105.0
        gate.open.set()
        await asyncio.gather(running, *others)
        for task in late:
            with pytest.raises(DeadlinePassed, match="timeout_ms"):
                await task
        with pytest.raises(DeadlinePassed):  # alone, with nobody else to run
            await batcher.predict(picture(5), deadline=104.0)
        assert (await batcher.predict(picture(6), deadline=105.1)).answer.scores[0, 0, 0] == 6

    play(batcher, scenario)
    assert gate.batches == [[0], [3, 4], [6]]


class Paced:
    """An encoder that moves the clock on, waits for `start`, and stops at each image `held` names until let go."""

    def __init__(self, clock: Clock, seconds: float, held: int = 255) -> None:
        self.clock, self.seconds, self.held = clock, seconds, held
        self.start, self.go = threading.Event(), threading.Event()
        self.start.set()
        self.ran: list[int] = []

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        assert self.start.wait(10)
        if (first := int(pixels[0, 0, 0, 0])) == self.held:
            assert self.go.wait(10)
        self.ran.append(first)
        self.clock.now += self.seconds
        return echo(pixels)


def after(measured: int, waiting: int, allowed_s: float, **options: Any) -> type[BaseException] | None:
    """What becomes at once of an image that allows so much, behind `waiting` ones of one second each, after
    `measured` ones in a row."""
    clock = Clock()
    paced = Paced(clock, 1.0, held=250)
    batcher = NetworkBatcher(paced, clock=clock)

    async def scenario() -> type[BaseException] | None:
        paced.start.clear()  # all are in the line before the first has run: no pause in between
        tasks = await queued(batcher, [picture(i) for i in range(measured)])
        tasks += await queued(batcher, [picture(250)])
        tasks += await queued(batcher, [picture(100 + i) for i in range(waiting)])
        paced.start.set()
        await until(lambda: batcher.running == 1 and batcher.waiting == waiting and len(paced.ran) == measured)
        asked = asyncio.create_task(batcher.predict(picture(200), deadline=clock.now + allowed_s, **options))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refused = asked.exception() if asked.done() else None
        paced.go.set()
        await asyncio.gather(*tasks, asked, return_exceptions=True)
        if isinstance(refused, Busy):
            assert refused.reason == "deadline"
            assert refused.retry_after_s == waiting
        return type(refused) if refused else None

    result: type[BaseException] | None = play(batcher, scenario)
    return result


def test_what_can_certainly_not_be_in_time_is_refused_at_once() -> None:
    assert after(measured=8, waiting=10, allowed_s=4.9) is Busy


def test_what_may_be_in_time_is_never_refused() -> None:
    assert after(measured=8, waiting=10, allowed_s=5.0) is None  # twice its time would do
    assert after(measured=7, waiting=10, allowed_s=0.1) is None  # too little is known
    assert after(measured=8, waiting=0, allowed_s=0.1) is None  # nobody is ahead
    assert after(measured=8, waiting=10, allowed_s=0.1, priority=20) is None  # it goes first
    assert after(measured=8, waiting=10, allowed_s=0.1, key="other") is None  # and so does a key with nothing waiting


def test_an_idle_network_forgets_its_pace() -> None:
    clock = Clock()
    paced = Paced(clock, 1.0, held=250)
    batcher = NetworkBatcher(paced, clock=clock)

    async def scenario() -> None:
        await asyncio.gather(*await queued(batcher, [picture(i) for i in range(20)]))
        await until(lambda: batcher.running == 0)
        running = await queued(batcher, [picture(250), *(picture(i) for i in range(50))])
        await until(lambda: batcher.running == 1)
        asked = (await queued(batcher, [picture(1)], deadline=clock.now + 0.1))[0]
        await asyncio.sleep(0)
        assert not asked.done()
        paced.go.set()
        await asyncio.gather(*running)
        with pytest.raises(DeadlinePassed):
            await asked

    play(batcher, scenario)
