"""What runs beside the requests: whatever ends it is told, and nobody waits for what never comes back."""

import asyncio
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.scheduling.background import Patience, WorkLost, in_thread, spawn
from service.scheduling.watchdog import Watchdog
from tests.service.fakes import until

ROOT = Path(__file__).parents[3]


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), GeneratorExit()])
def test_what_would_end_the_loop_is_an_error_like_others(error: BaseException) -> None:
    async def scenario() -> None:
        with pytest.raises(WorkLost, match=type(error).__name__) as lost:
            await asyncio.wait_for(in_thread(lambda: raising(error), "job"), 5)
        assert lost.value.__cause__ is error
        with pytest.raises(ValueError, match="its own"):
            await in_thread(lambda: raising(ValueError("its own")), "job")
        assert await in_thread(lambda: 7, "job") == 7

    asyncio.run(scenario())


def test_the_end_of_a_task_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise OSError("no space")

    async def scenario() -> None:
        task = spawn(fails(), "keeping names")
        gone = spawn(asyncio.sleep(60), "sleeping")
        await until(task.done)
        gone.cancel()
        await asyncio.sleep(0)

    with caplog.at_level(logging.INFO, "tessera"):
        asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records] == ["keeping names ended: no space"]


def test_an_answer_nobody_waits_for_is_put_away() -> None:
    go, closed = threading.Event(), threading.Event()

    async def scenario() -> None:
        done = in_thread(lambda: go.wait(10), "opening", lambda answer: closed.set())
        done.cancel()
        go.set()
        await until(closed.is_set)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_thread_that_hangs_keeps_no_process() -> None:
    code = """
import asyncio, threading
from service.scheduling.background import in_thread
from service.scheduling.batcher import thread_pool

async def main():
    in_thread(threading.Event().wait, "hangs")
    pool = thread_pool("worker", 2)
    task = asyncio.create_task(pool.submit(threading.Event().wait))
    while not pool.running: await asyncio.sleep(0.001)
    task.cancel()
    pool.close()

asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=20).returncode == 0


def test_patience_is_for_one_thing_at_a_time() -> None:
    patience, one, other = Patience(), object(), object()
    assert [patience.look(one, 1), patience.look(one, 1), patience.look(one, 2.5)] == [0, 1, 3.5]
    assert [patience.look(other, 9), patience.look(other, 1), patience.look(None, 9), patience.look(other, 9)] == [
        0, 1, 0, 0,
    ]  # fmt: skip


def test_the_watchdog_looks_again_after_a_failure_and_takes_no_pause_for_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[float] = []
    late: list[float] = []

    def tend(elapsed_s: float) -> None:
        seen.append(elapsed_s)
        if len(seen) == 1:
            raise RuntimeError("once")

    watchdog = Watchdog([tend], late.append, 0.1)
    assert watchdog.period_s == pytest.approx(0.01)

    async def scenario() -> None:
        task = spawn(watchdog.run(), "watching")
        await until(lambda: len(seen) == 2)
        threading.Event().wait(0.2)  # the whole loop stands still
        await until(lambda: len(seen) == 4)
        task.cancel()

    asyncio.run(scenario())
    assert max(seen) <= 2 * watchdog.period_s
    assert max(late) > 0.1
    assert "once" in caplog.text
