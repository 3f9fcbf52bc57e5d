"""Batches: what goes together, cancellation, memory, threads. The network runs when the test says so."""

import asyncio
import gc
import logging
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from models.inference import Prediction
from service.errors import Busy, NetworkNotFinite
from service.repository.served_model import NetworkBatcher
from service.scheduling.background import WorkLost
from service.scheduling.batcher import Batcher, Completed, thread_pool
from tests.service.fakes import Clock, Gate, echo, held, picture, play, queued, until


def batches_of(batcher: NetworkBatcher, gate: Gate, pictures: list[Any]) -> list[list[int]]:
    """What goes together when picture 0 runs and these come meanwhile; every answer is its own picture's."""

    async def scenario() -> None:
        tasks = [await held(batcher), *await queued(batcher, pictures)]
        assert (batcher.running, batcher.waiting) == (1, len(pictures))
        gate.open.set()
        answers = await asyncio.gather(*tasks)
        assert [a.answer.scores[0, 0, 0] for a in answers[1:]] == [pixels[0, 0, 0] for pixels in pictures]

    play(batcher, scenario)
    assert (batcher.running, batcher.waiting) == (0, 0)
    return gate.batches


def test_a_lone_image_does_not_wait_for_company() -> None:
    batcher = NetworkBatcher(echo, max_batch_size=8)
    got = play(batcher, lambda: batcher.predict(picture(7)))
    assert got.answer.scores[0, 0, 0] == 7
    assert got.queue_s >= 0


def test_first_in_first_out_and_one_at_a_time_without_batching() -> None:
    gate = Gate()
    assert batches_of(NetworkBatcher(gate), gate, [picture(i) for i in range(1, 6)]) == [[i] for i in range(6)]


def test_what_is_queued_goes_together_and_the_reasons_are_told() -> None:
    gate = Gate()
    told: list[tuple[int, str]] = []
    batcher = NetworkBatcher(gate, max_batch_size=4, on_batch=lambda size, reason: told.append((size, reason)))
    pictures = [*(picture(i) for i in range(1, 6)), picture(6, side=16)]
    assert batches_of(batcher, gate, pictures) == [[0], [1, 2, 3, 4], [5], [6]]
    assert told == [(1, "drained"), (4, "full"), (1, "shape"), (1, "drained")]


def test_only_equal_shapes_go_together_and_nobody_loses_a_turn() -> None:
    gate = Gate()
    pictures = [picture(1), picture(2, side=16), picture(3), picture(4, side=16)]
    assert batches_of(NetworkBatcher(gate, max_batch_size=4), gate, pictures) == [[0], [1, 3], [2, 4]]


def test_the_pixel_budget_bounds_a_batch_but_never_refuses_one_image() -> None:
    gate = Gate()
    told: list[str] = []
    batcher = NetworkBatcher(
        gate, max_batch_size=8, max_batch_mpx=2.5 * 64 / 1e6, on_batch=lambda size, reason: told.append(reason)
    )
    pictures = [*(picture(i) for i in range(1, 6)), picture(9, side=32)]
    assert batches_of(batcher, gate, pictures) == [[0], [1, 2], [3, 4], [5], [9]]
    assert told == ["drained", "budget", "budget", "shape", "budget"]


def test_the_code_is_fetched_only_when_someone_asks() -> None:
    gate = Gate()
    batcher = NetworkBatcher(gate, max_batch_size=4)

    async def scenario() -> list[Completed[Prediction]]:
        tasks = [await held(batcher)]
        for i in (1, 2):
            tasks += await queued(batcher, [picture(i)], code=i == 2)
        gate.open.set()
        return list(await asyncio.gather(*tasks))

    answers = play(batcher, scenario)
    assert gate.codes == [False, True]
    assert answers[0].answer.code is None
    assert answers[2].answer.code is not None
    assert answers[2].answer.code[0, 0, 0] == 2.5


def test_a_single_image_is_not_copied() -> None:
    seen: list[Any] = []

    def look(pixels: Any, *, code: bool = False) -> Prediction:
        seen.append(pixels)
        return echo(pixels)

    batcher = NetworkBatcher(look, max_batch_size=4)
    pixels = picture(3)
    play(batcher, lambda: batcher.predict(pixels))
    assert np.shares_memory(seen[0], pixels)


def test_keys_take_turns_and_priority_is_within_a_key() -> None:
    gate = Gate()
    batcher = NetworkBatcher(gate, clock=Clock())

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
    batcher = NetworkBatcher(gate, max_batch_size=4)

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
    batcher = NetworkBatcher(gate)

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

    def watched(pixels: Any, *, code: bool = False) -> Prediction:
        scores = np.zeros((len(pixels), 1, 1, 1), np.float32)
        held_by.extend((weakref.ref(pixels), weakref.ref(scores)))
        return Prediction(scores)

    batcher = NetworkBatcher(watched, max_batch_size=4)

    async def scenario() -> None:
        await asyncio.gather(*(batcher.predict(picture(i)) for i in range(6)))
        assert held_by
        await until(lambda: gc.collect() >= 0 and not [gone for gone in held_by if gone() is not None])

    play(batcher, scenario)


def test_an_error_reaches_its_batch_and_the_next_one_runs() -> None:
    calls = 0

    def fails_once(pixels: Any, *, code: bool = False) -> Prediction:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the device is lost")
        return echo(pixels)

    batcher = NetworkBatcher(fails_once)

    async def scenario() -> Completed[Prediction]:
        with pytest.raises(RuntimeError, match="device is lost"):
            await batcher.predict(picture(1))
        return await batcher.predict(picture(2))

    assert play(batcher, scenario).answer.scores[0, 0, 0] == 2
    assert batcher.running == 0


class Small:
    """An encoder with memory for so many images at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.gate = Gate()

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        assert self.gate.open.wait(10)
        if len(pixels) > self.room:
            raise MemoryError("allocator gave up")
        return self.gate(pixels, code=code)


def test_without_memory_a_batch_is_halved_and_everybody_answered(caplog: pytest.LogCaptureFixture) -> None:
    small = Small(2)
    told: list[tuple[int, str]] = []
    batcher = NetworkBatcher(small, max_batch_size=16, on_batch=lambda size, reason: told.append((size, reason)))
    with caplog.at_level(logging.WARNING, "tessera"):
        batches = batches_of(batcher, small.gate, [picture(i) for i in range(1, 8)])
    assert batches == [[0], [1], [2, 3], [4, 5], [6, 7]]
    assert told == [(1, "drained"), (1, "memory"), (2, "memory"), (2, "memory"), (2, "memory")]
    assert "batch of 7" in caplog.text


def test_one_image_without_memory_is_refused_and_the_next_one_runs() -> None:
    small = Small(0)
    small.gate.open.set()
    batcher = NetworkBatcher(small, max_batch_size=4)

    async def scenario() -> Completed[Prediction]:
        with pytest.raises(Busy, match="8×8") as refused:
            await batcher.predict(picture(1))
        assert (refused.value.reason, refused.value.retry_after_s) == ("memory", 1)
        small.room = 1
        return await batcher.predict(picture(2))

    assert play(batcher, scenario).answer.scores[0, 0, 0] == 2


def test_the_network_takes_the_next_batch_while_the_event_loop_is_busy() -> None:
    gate = Gate()
    ran = threading.Event()

    def watched(pixels: Any, *, code: bool = False) -> Prediction:
        encoded = gate(pixels)
        if len(gate.batches) == 4:
            ran.set()
        return encoded

    batcher = NetworkBatcher(watched)

    async def scenario() -> None:
        tasks = [await held(batcher), *await queued(batcher, [picture(i) for i in range(1, 4)])]
        gate.open.set()
        assert ran.wait(5)  # the event loop stands still here
        assert not any(task.done() for task in tasks)
        await asyncio.gather(*tasks)

    play(batcher, scenario)


def test_closed_it_finishes_what_runs_and_refuses_what_waits_and_comes() -> None:
    gate = Gate()
    batcher = NetworkBatcher(gate)

    async def scenario() -> None:
        running = await held(batcher)
        waiting = await queued(batcher, [picture(1), picture(2)])
        batcher.close()
        for task in (*waiting, batcher.predict(picture(3))):
            with pytest.raises(Busy) as refused:
                await task
            assert refused.value.reason == "draining"
        assert batcher._started[0].is_alive()
        gate.open.set()
        assert (await running).answer.scores[0, 0, 0] == 0
        await batcher.ended()
        assert not batcher._started[0].is_alive()

    asyncio.run(scenario())


def test_the_loop_may_end_before_the_network_does() -> None:
    gate = Gate()
    batcher = NetworkBatcher(gate)

    async def scenario() -> None:
        await held(batcher)
        batcher.close()

    asyncio.run(scenario())
    gate.open.set()
    batcher._started[0].join(5)
    assert not batcher._started[0].is_alive()


def test_several_threads_run_what_waits_and_keys_still_take_turns() -> None:
    go, order = threading.Event(), []  # type: ignore[var-annotated]
    pool = thread_pool("worker", 2)

    def job(name: str) -> Any:
        def run() -> str:
            assert go.wait(10)
            order.append(name)
            return name

        return run

    async def scenario() -> None:
        tasks = [asyncio.create_task(pool.submit(job(f"a{i}"), key="a")) for i in range(8)]
        await until(lambda: pool.running == 2)
        tasks.append(asyncio.create_task(pool.submit(job("b"), key="b")))
        await until(lambda: pool.waiting == 7)
        go.set()
        assert [done.answer for done in await asyncio.gather(*tasks)] == [*(f"a{i}" for i in range(8)), "b"]

    play(pool, scenario)
    assert order.index("b") <= 4  # two were running, and each of the threads may have taken one of the others first


def test_a_job_knows_whether_it_is_alone() -> None:
    pool = thread_pool("worker", 2)
    go = threading.Event()

    async def scenario() -> None:
        assert (await pool.submit(lambda: pool.alone)).answer
        first = asyncio.create_task(pool.submit(lambda: go.wait(10) and pool.alone))
        await until(lambda: pool.running == 1)
        assert not (await pool.submit(lambda: pool.alone)).answer
        go.set()
        await first

    play(pool, scenario)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), StopIteration(), MemoryError()])
def test_whatever_a_job_raises_is_its_answer_and_the_thread_goes_on(error: BaseException) -> None:
    pool = thread_pool("worker", 1)

    def fails() -> None:
        raise error

    async def scenario() -> None:
        with pytest.raises(MemoryError if isinstance(error, MemoryError) else WorkLost):
            await pool.submit(fails)
        assert (await pool.submit(lambda: 3)).answer == 3
        assert (pool.running, pool.waiting) == (0, 0)

    play(pool, scenario)


def test_too_few_answers_and_failures_of_the_batcher_itself_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    broken = False

    def clock() -> float:
        nonlocal broken
        if broken and threading.current_thread().name == "short 0":
            broken = False
            raise RuntimeError("no clock")
        return 1.0

    batcher: Batcher[int, int] = Batcher(lambda jobs: [] if jobs == [1] else jobs, name="short", clock=clock)

    async def scenario() -> None:
        nonlocal broken
        with pytest.raises(WorkLost, match="0 answers for 1"):
            await batcher.submit(1)
        await until(lambda: batcher._idle == 1)
        broken = True
        assert (await batcher.submit(2)).answer == 2

    play(batcher, scenario)
    assert "no clock" in caplog.text


def test_one_callback_that_fails_loses_nobody_elses_answer(caplog: pytest.LogCaptureFixture) -> None:
    def told(size: int, reason: str) -> None:
        raise RuntimeError("the metric is broken")

    batcher: Batcher[int, int] = Batcher(lambda jobs: jobs, name="echo", on_batch=told)

    async def scenario() -> list[int]:
        return [done.answer for done in await asyncio.gather(*(batcher.submit(i) for i in range(5)))]

    assert play(batcher, scenario) == list(range(5))
    assert "the metric is broken" in caplog.text


def test_a_thread_that_dies_is_replaced_and_its_job_answered(caplog: pytest.LogCaptureFixture) -> None:
    pool = thread_pool("worker", 1)

    async def scenario() -> None:
        await pool.submit(lambda: 1)
        pool._work = lambda worker: worker.jobs.extend(pool._queue.take(0).batch)  # type: ignore[method-assign, assignment]
        pool._started[0] = type(pool._started[0])(pool._work, "dies")
        task = asyncio.create_task(pool.submit(lambda: 2))
        await until(lambda: pool.waiting == 1)
        pool.running = 1
        pool._started[0].start()
        pool._started[0].join()
        del pool._work  # type: ignore[method-assign]
        assert pool.tend(1)
        with pytest.raises(WorkLost, match="died"):
            await task
        assert (await pool.submit(lambda: 3)).answer == 3
        assert not pool.tend(1)

    play(pool, scenario)
    assert "has died" in caplog.text


def test_a_job_that_hangs_is_answered_and_another_thread_goes_on() -> None:
    go, pool = threading.Event(), thread_pool("worker", 1, longest_s=5)

    async def scenario() -> None:
        hung = asyncio.create_task(pool.submit(lambda: go.wait(10)))
        await until(lambda: pool.running == 1)
        assert not pool.tend(1)
        assert not pool.tend(5)
        assert pool.tend(1)
        with pytest.raises(WorkLost, match="within 6 s"):
            await hung
        again = asyncio.create_task(pool.submit(lambda: go.wait(10)))
        await until(lambda: pool.running == 1)
        assert not any(pool.tend(9) for _ in range(3))  # no more are given up than there are at once
        go.set()
        assert (await again).answer
        await until(lambda: not pool._lost[0].is_alive())
        assert (await pool.submit(lambda: 4)).answer == 4
        assert pool.running == 0

    play(pool, scenario)


def test_abandoned_it_answers_everybody_at_once_and_ends_though_it_hangs() -> None:
    gate = Gate()
    batcher = NetworkBatcher(gate)

    async def scenario() -> None:
        running = await held(batcher)
        (waiting,) = await queued(batcher, [picture(1)])
        batcher.abandon(lambda: RuntimeError("hung"), lambda: Busy("later", reason="engine"))
        with pytest.raises(RuntimeError, match="hung"):
            await running
        for task in (waiting, batcher.predict(picture(2))):
            with pytest.raises(Busy, match="later"):
                await task
        await asyncio.wait_for(batcher.ended(), 1)
        gate.open.set()  # what comes back late disturbs nobody
        await until(lambda: gate.batches == [[0]])

    play(batcher, scenario)


def test_nan_is_one_images_error_and_not_its_neighbors() -> None:
    gate, told = Gate(), []

    def network(pixels: Any, *, code: bool = False) -> Prediction:
        scores, codes = gate(pixels, code=code)
        scores[pixels[:, 0, 0, 0] == 2] = np.nan
        if codes is not None:
            codes[pixels[:, 0, 0, 0] == 3] = np.inf
        return Prediction(scores, codes)

    batcher = NetworkBatcher(network, model="tiny@1", max_batch_size=8, on_not_finite=lambda: told.append(1))

    async def scenario() -> list[Any]:
        tasks = [await held(batcher), *await queued(batcher, [picture(i) for i in range(1, 5)], code=True)]
        gate.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = play(batcher, scenario)
    assert [isinstance(answer, NetworkNotFinite) for answer in answers] == [False, False, True, True, False]
    assert "tiny@1" in str(answers[2])
    assert len(told) == 2
    assert gate.batches == [[0], [1, 2, 3, 4]]
    assert batcher.failures == 0
