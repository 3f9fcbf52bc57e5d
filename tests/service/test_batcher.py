"""Batches: what goes together, deadlines, cancellation, memory, threads. The network runs when the test says so."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import assign, image
from models.bundle import Bundle, Encoded
from service.batcher import Batched, Batcher
from service.engines import open_engine
from service.errors import Busy, DeadlinePassed
from service.settings import Settings, embedded
from tests.tiny import bands


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
        return echo(pixels, code=code)


def echo(pixels: Any, *, code: bool = False) -> Encoded:
    scores = pixels[:, :1, :1, :1].transpose(0, 3, 1, 2).astype(np.float32)
    return Encoded(scores, scores + 0.5 if code else None)


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


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
            await batcher.ended()

    return asyncio.run(whole())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.0002)


async def held(batcher: Batcher) -> asyncio.Task[Batched]:
    """Picture 0, in the network and held by the gate."""
    task = asyncio.create_task(batcher.submit(picture(0)))
    await until(lambda: batcher.running == 1)
    return task


async def queued(batcher: Batcher, pictures: list[Any], **options: Any) -> list[asyncio.Task[Batched]]:
    """These wait, in order, behind what is held."""
    tasks = [asyncio.create_task(batcher.submit(pixels, **options)) for pixels in pictures]
    await asyncio.sleep(0)
    return tasks


def batches_of(batcher: Batcher, gate: Gate, pictures: list[Any]) -> list[list[int]]:
    """What goes together when picture 0 runs and these come meanwhile; every answer is its own picture's."""

    async def scenario() -> None:
        tasks = [await held(batcher), *await queued(batcher, pictures)]
        assert (batcher.running, batcher.waiting) == (1, len(pictures))
        gate.open.set()
        answers = await asyncio.gather(*tasks)
        assert [a.scores[0, 0, 0] for a in answers[1:]] == [pixels[0, 0, 0] for pixels in pictures]

    play(batcher, scenario)
    assert (batcher.running, batcher.waiting) == (0, 0)
    return gate.batches


def test_a_lone_image_does_not_wait_for_company() -> None:
    batcher = Batcher(echo, max_batch_size=8)
    got = play(batcher, lambda: batcher.submit(picture(7)))
    assert got.scores[0, 0, 0] == 7
    assert 0 <= got.queue_s < 0.5


def test_first_in_first_out_and_one_at_a_time_without_batching() -> None:
    gate = Gate()
    assert batches_of(Batcher(gate), gate, [picture(i) for i in range(1, 6)]) == [[i] for i in range(6)]


def test_what_is_queued_goes_together_and_the_reasons_are_told() -> None:
    gate = Gate()
    told: list[tuple[int, str]] = []
    batcher = Batcher(gate, max_batch_size=4, on_batch=lambda size, reason: told.append((size, reason)))
    pictures = [*(picture(i) for i in range(1, 6)), picture(6, side=16)]
    assert batches_of(batcher, gate, pictures) == [[0], [1, 2, 3, 4], [5], [6]]
    assert told == [(1, "drained"), (4, "full"), (1, "shape"), (1, "drained")]


def test_only_equal_shapes_go_together_and_nobody_loses_a_turn() -> None:
    gate = Gate()
    pictures = [picture(1), picture(2, side=16), picture(3), picture(4, side=16)]
    assert batches_of(Batcher(gate, max_batch_size=4), gate, pictures) == [[0], [1, 3], [2, 4]]


def test_the_pixel_budget_bounds_a_batch_but_never_refuses_one_image() -> None:
    gate = Gate()
    told: list[str] = []
    batcher = Batcher(
        gate, max_batch_size=8, max_batch_mpx=2.5 * 64 / 1e6, on_batch=lambda size, reason: told.append(reason)
    )
    pictures = [*(picture(i) for i in range(1, 6)), picture(9, side=32)]
    assert batches_of(batcher, gate, pictures) == [[0], [1, 2], [3, 4], [5], [9]]
    assert told == ["drained", "budget", "budget", "shape", "budget"]


def test_the_code_is_fetched_only_when_someone_asks() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch_size=4)

    async def scenario() -> list[Batched]:
        tasks = [await held(batcher)]
        for i in (1, 2):
            tasks += await queued(batcher, [picture(i)], code=i == 2)
        gate.open.set()
        return list(await asyncio.gather(*tasks))

    answers = play(batcher, scenario)
    assert gate.codes == [False, True]
    assert answers[0].code is None
    assert answers[2].code is not None
    assert answers[2].code[0, 0, 0] == 2.5


def test_a_single_image_is_not_copied() -> None:
    seen: list[Any] = []

    def look(pixels: Any, *, code: bool = False) -> Encoded:
        seen.append(pixels)
        return echo(pixels)

    batcher = Batcher(look, max_batch_size=4)
    pixels = picture(3)
    play(batcher, lambda: batcher.submit(pixels))
    assert np.shares_memory(seen[0], pixels)


def test_keys_take_turns_and_priority_is_within_a_key() -> None:
    gate = Gate()
    batcher = Batcher(gate, clock=Clock())

    async def scenario() -> None:
        tasks = [await held(batcher)]
        tasks += await queued(batcher, [picture(1), picture(2)], key="a")
        tasks += await queued(batcher, [picture(3)], key="a", priority=1)
        tasks += await queued(batcher, [picture(4), picture(5)], key="b")
        gate.open.set()
        await asyncio.gather(*tasks)

    play(batcher, scenario)
    assert gate.batches == [[0], [3], [4], [1], [5], [2]]


def test_who_gives_up_while_waiting_never_runs() -> None:
    gate = Gate()
    batcher = Batcher(gate, max_batch_size=4)

    async def scenario() -> None:
        running = await held(batcher)
        tasks = await queued(batcher, [picture(i) for i in range(1, 4)])
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        assert batcher.waiting == 2
        running.cancel()  # it runs to its end, for nobody
        gate.open.set()
        await asyncio.gather(running, *tasks, return_exceptions=True)

    play(batcher, scenario)
    assert gate.batches == [[0], [1, 3]]


def test_who_gave_up_leaves_no_pixels_behind() -> None:
    gate = Gate()
    batcher = Batcher(gate)

    async def scenario() -> None:
        running = [await held(batcher), *await queued(batcher, [picture(1, side=64)])]
        pixels = picture(2, side=64)
        gone = weakref.ref(pixels)
        task = (await queued(batcher, [pixels]))[0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del pixels, task
        await asyncio.sleep(0)  # the loop lets go of the task
        gc.collect()
        assert gone() is None
        gate.open.set()
        await asyncio.gather(*running)

    play(batcher, scenario)


def test_an_idle_batcher_holds_neither_pixels_nor_answers() -> None:
    held_by: list[Any] = []

    def watched(pixels: Any, *, code: bool = False) -> Encoded:
        scores = np.zeros((len(pixels), 1, 1, 1), np.float32)
        held_by.extend((weakref.ref(pixels), weakref.ref(scores)))
        return Encoded(scores)

    batcher = Batcher(watched, max_batch_size=4)

    async def scenario() -> None:
        await asyncio.gather(*(batcher.submit(picture(i)) for i in range(6)))
        await until(lambda: batcher._idle)
        await asyncio.sleep(0)  # the loop lets go of the tasks
        gc.collect()
        assert held_by
        assert not [gone for gone in held_by if gone() is not None]

    play(batcher, scenario)


def test_a_deadline_that_passed_in_the_queue_is_never_run() -> None:
    gate, clock = Gate(), Clock()
    batcher = Batcher(gate, max_batch_size=4, clock=clock)

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
            await batcher.submit(picture(5), deadline=104.0)
        assert (await batcher.submit(picture(6), deadline=105.1)).scores[0, 0, 0] == 6

    play(batcher, scenario)
    assert gate.batches == [[0], [3, 4], [6]]


class Paced:
    """An encoder that moves the clock on, and stops at each image `held` names until it is let go."""

    def __init__(self, clock: Clock, seconds: float, held: int = 255) -> None:
        self.clock, self.seconds, self.held = clock, seconds, held
        self.go = threading.Event()
        self.ran: list[int] = []

    def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
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
    batcher = Batcher(paced, clock=clock)

    async def scenario() -> type[BaseException] | None:
        tasks = await queued(batcher, [picture(i) for i in range(measured)])  # one thread, no pause in between
        tasks += await queued(batcher, [picture(250)])
        tasks += await queued(batcher, [picture(100 + i) for i in range(waiting)])
        await until(lambda: batcher.running == 1 and batcher.waiting == waiting and len(paced.ran) == measured)
        asked = asyncio.create_task(batcher.submit(picture(200), deadline=clock.now + allowed_s, **options))
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
    batcher = Batcher(paced, clock=clock)

    async def scenario() -> None:
        await asyncio.gather(*await queued(batcher, [picture(i) for i in range(20)]))
        await until(lambda: batcher._idle)
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


def test_an_error_reaches_its_batch_and_the_next_one_runs() -> None:
    calls = 0

    def fails_once(pixels: Any, *, code: bool = False) -> Encoded:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the device is lost")
        return echo(pixels)

    batcher = Batcher(fails_once)

    async def scenario() -> Batched:
        with pytest.raises(RuntimeError, match="device is lost"):
            await batcher.submit(picture(1))
        return await batcher.submit(picture(2))

    assert play(batcher, scenario).scores[0, 0, 0] == 2
    assert batcher.running == 0


class Small:
    """An encoder with memory for so many images at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.gate = Gate()

    def __call__(self, pixels: Any, *, code: bool = False) -> Encoded:
        assert self.gate.open.wait(10)
        if len(pixels) > self.room:
            raise MemoryError("allocator gave up")
        return self.gate(pixels, code=code)


def test_without_memory_a_batch_is_halved_and_everybody_answered(caplog: pytest.LogCaptureFixture) -> None:
    small = Small(2)
    told: list[tuple[int, str]] = []
    batcher = Batcher(small, max_batch_size=16, on_batch=lambda size, reason: told.append((size, reason)))
    with caplog.at_level(logging.WARNING, "tessera"):
        batches = batches_of(batcher, small.gate, [picture(i) for i in range(1, 8)])
    assert batches == [[0], [1], [2, 3], [4, 5], [6, 7]]
    assert told == [(1, "drained"), (1, "memory"), (2, "memory"), (2, "memory"), (2, "memory")]
    assert "batch of 7" in caplog.text


def test_one_image_without_memory_is_refused_and_the_next_one_runs() -> None:
    small = Small(0)
    small.gate.open.set()
    batcher = Batcher(small, max_batch_size=4)

    async def scenario() -> Batched:
        with pytest.raises(Busy, match="8×8") as refused:
            await batcher.submit(picture(1))
        assert (refused.value.reason, refused.value.retry_after_s) == ("memory", 1)
        small.room = 1
        return await batcher.submit(picture(2))

    assert play(batcher, scenario).scores[0, 0, 0] == 2


def test_the_network_takes_the_next_batch_while_the_event_loop_is_busy() -> None:
    gate = Gate()
    ran = threading.Event()

    def watched(pixels: Any, *, code: bool = False) -> Encoded:
        encoded = gate(pixels)
        if len(gate.batches) == 4:
            ran.set()
        return encoded

    batcher = Batcher(watched)

    async def scenario() -> None:
        tasks = [await held(batcher), *await queued(batcher, [picture(i) for i in range(1, 4)])]
        gate.open.set()
        assert ran.wait(5)  # the event loop stands still here
        assert not any(task.done() for task in tasks)
        await asyncio.gather(*tasks)

    play(batcher, scenario)


def test_closed_it_finishes_what_runs_and_refuses_what_waits_and_comes() -> None:
    gate = Gate()
    batcher = Batcher(gate)

    async def scenario() -> None:
        serving = asyncio.create_task(batcher.serve())
        running = await held(batcher)
        waiting = await queued(batcher, [picture(1), picture(2)])
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        for task in (*waiting, batcher.submit(picture(3))):
            with pytest.raises(Busy) as refused:
                await task
            assert refused.value.reason == "draining"
        assert batcher._thread.is_alive()
        gate.open.set()
        assert (await running).scores[0, 0, 0] == 0
        await batcher.ended()
        assert not batcher._thread.is_alive()

    asyncio.run(scenario())


def test_the_loop_may_end_before_the_network_does() -> None:
    gate = Gate()
    batcher = Batcher(gate)

    async def scenario() -> None:
        task = asyncio.create_task(batcher.serve())
        await held(batcher)
        task.cancel()

    asyncio.run(scenario())
    gate.open.set()
    batcher._thread.join(5)
    assert not batcher._thread.is_alive()


@pytest.mark.parametrize("seed", range(6))
def test_everybody_gets_their_own_answer_once_whatever_comes(seed: int) -> None:
    """Shapes, keys, priorities, deadlines, cancellations, a network that fails and one that is small: at random."""
    chance = random.Random(seed)
    room = chance.choice([1, 3, 8, 100])
    ran: list[int] = []

    def number(pixels: Any) -> int:
        return int(pixels[0, 0, 0]) + 256 * int(pixels[0, 0, 1])

    def network(pixels: Any, *, code: bool = False) -> Encoded:
        numbers = [number(pixels) for pixels in pixels]
        if len(pixels) > room:
            raise MemoryError
        ran.extend(numbers)
        if any(n % 97 == 0 for n in numbers):
            raise RuntimeError(str(numbers))
        scores = np.array(numbers, np.float32)[:, None, None, None]
        return Encoded(scores, -scores if code else None)

    sizes: list[int] = []
    clock = Clock()
    batcher = Batcher(network, max_batch_size=8, on_batch=lambda size, reason: sizes.append(size), clock=clock)
    answered, failed, late, cancelled = [], [], [], []

    async def client(i: int) -> None:
        side = chance.choice([8, 8, 16])
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = i % 256, i // 256
        wants_code = chance.random() < 0.3
        deadline = chance.choice([None, None, clock.now + chance.random()])
        try:
            got = await batcher.submit(
                pixels, code=wants_code, key=chance.choice("abc"), priority=chance.randint(-2, 2), deadline=deadline
            )
        except RuntimeError as error:
            failed.append(i if str(i) in str(error) else -1)
        except DeadlinePassed:
            late.append(i)
        except asyncio.CancelledError:
            cancelled.append(i)
            raise
        else:
            assert got.scores.item() == i
            if wants_code:
                assert got.code is not None
                assert got.code.item() == -i
            answered.append(i)

    async def scenario() -> None:
        tasks: list[asyncio.Task[None]] = []
        while len(tasks) < 600:
            for _ in range(chance.randint(1, 20)):
                tasks.append(asyncio.create_task(client(len(tasks))))
            clock.now += 0.05
            await asyncio.sleep(0)
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
            if chance.random() < 0.2:
                await asyncio.sleep(0.0005)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert batcher.waiting == 0
        fates = sorted([*answered, *failed, *late, *cancelled])
        unstarted = [i for i, task in enumerate(tasks) if task.cancelled() and i not in cancelled]
        assert sorted([*fates, *unstarted]) == list(range(len(tasks)))

    play(batcher, scenario)
    assert len(ran) == len(set(ran))
    assert set(answered) <= set(ran)
    assert not set(late) & set(ran)
    assert sum(sizes) <= len(ran)
    assert max(sizes) <= min(8, room)


def alone_and_together(engine: Any, pictures: list[Any], most: int) -> tuple[list[Batched], list[Batched], int]:
    """What each picture gets alone, and in batches of up to `most`; and the largest of those."""

    def answers(most: int) -> tuple[list[Batched], int]:
        sizes: list[int] = []
        go = threading.Event()

        def network(pixels: Any, *, code: bool = False) -> Encoded:
            assert go.wait(10)
            encoded: Encoded = engine(pixels, code=code)
            return encoded

        batcher = Batcher(network, max_batch_size=most, on_batch=lambda size, reason: sizes.append(size))

        async def scenario() -> list[Batched]:
            tasks = await queued(batcher, pictures, code=True)
            go.set()
            return await asyncio.gather(*tasks)

        got: list[Batched] = play(batcher, scenario)
        return got, max(sizes)

    alone, one = answers(1)
    assert one == 1
    return alone, *answers(most)


@pytest.mark.parametrize("most", [2, 5, 16])
def test_scores_do_not_depend_on_the_company_bit_for_bit(tiny_bundle: Path, most: int) -> None:
    """onnxruntime on a CPU: every image alone, and in batches with other shapes queued in between."""
    bundle = Bundle.load(tiny_bundle)
    engine = open_engine(bundle, Settings(engine="onnxruntime", threads=1))
    chance = np.random.default_rng(0)
    pictures = []
    for i in range(40):
        height, width = [(64, 64), (64, 104), (80, 64)][i % 3]
        noise = chance.integers(0, 60, (height, width, 3), np.uint8)
        pictures.append(bands(height, width, tuple(chance.permutation(5))) // 2 + noise)
    alone, together, largest = alone_and_together(engine, pictures, most)
    assert largest >= min(most, 13)  # of one shape there are 14; the first may go before the others come
    seen = set()
    for pixels, one, many in zip(pictures, alone, together, strict=True):
        assert one.code is not None
        assert many.code is not None
        assert one.scores.tobytes() == many.scores.tobytes()
        assert one.code.tobytes() == many.code.tobytes()
        box = image.fit(pixels, bundle.manifest.input).box
        labels = assign.labels(many.scores, pixels.shape[:2], box)
        assert (labels == assign.labels(one.scores, pixels.shape[:2], box)).all()
        seen.add(labels.tobytes())
    assert len(seen) > 20


def test_labels_of_the_embedded_model_do_not_depend_on_the_company() -> None:
    bundle = Bundle.load(embedded()[0])
    engine = open_engine(bundle, Settings(engine="onnxruntime", threads=1))
    photo = image.fit(bundle.golden.image, bundle.manifest.input).pixels
    pictures = [photo, photo[::-1].copy(), photo[:, ::-1].copy(), photo // 2]
    alone, together, largest = alone_and_together(engine, pictures, 4)
    assert largest >= 3  # the first may go before the others come
    for one, many in zip(alone, together, strict=True):
        assert (one.scores.argmax(0) == many.scores.argmax(0)).all()
        assert np.abs(one.scores - many.scores).max() < 1e-4
