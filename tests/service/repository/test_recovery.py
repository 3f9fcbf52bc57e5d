"""Engines that hang, die or talk nonsense while they serve or are opened: who is told what, and that it ends well."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.inference import Prediction
from service.errors import BadModel, Busy, NetworkFailed, NetworkNotFinite
from service.metrics import Metrics
from service.repository import recovery
from service.repository.registry import NoBundle, Registry
from service.scheduling.background import spawn
from service.scheduling.watchdog import Watchdog
from tests.service.fakes import FakeEngine, until
from tests.service.registries import PIXELS, load, settings_of

TIMEOUT_S = 0.2


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "PAUSES_S", (0.0, 0.02, 0.02))


class Moody(FakeEngine):
    """Works until `mood` is set: then it hangs until `go`, or does what the mood says with its answer."""

    def __init__(self, mood: Callable[[Prediction], Prediction] | None = None) -> None:
        super().__init__()
        self.mood = mood
        self.go = threading.Event()

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        prediction = super().__call__(pixels, code=code)
        return prediction if self.mood is None else self.mood(prediction)

    def hang(self, prediction: Prediction) -> Prediction:
        assert self.go.wait(20)
        return prediction


def dies(prediction: Prediction) -> Prediction:
    raise SystemExit(1)


def fails(prediction: Prediction) -> Prediction:
    raise RuntimeError("the device is gone")


def nan(prediction: Prediction) -> Prediction:
    return Prediction(np.full_like(prediction.scores, np.nan), prediction.code)


class Engines:
    """What a server opens, in order: each engine may have a mood from the start."""

    def __init__(self, *moods: Callable[[Prediction], Prediction] | None) -> None:
        self.moods = list(moods)
        self.opened: list[Moody] = []

    def __call__(self, bundle: Bundle) -> Moody:
        self.opened.append(Moody(self.moods.pop(0) if self.moods else None))
        return self.opened[-1]


def watched(
    bundle: Bundle, tmp_path: Path, engines: Engines, work: Callable[[Registry], Awaitable[None]], **settings: Any
) -> str:
    """The metrics' text after `work` with a registry that a watchdog looks after."""
    metrics = Metrics()

    async def whole() -> None:
        given = settings_of(bundle, tmp_path, engine_timeout_s=TIMEOUT_S, **settings)
        registry = Registry(given, metrics, engines)
        watching = spawn(Watchdog([registry.recovery.tend], lambda late: None, TIMEOUT_S).run(), "watching")
        try:
            await registry.load()
            await asyncio.wait_for(work(registry), 10)
        finally:
            await asyncio.wait_for(registry.close(), 5)
            watching.cancel()

    asyncio.run(whole())
    return metrics.text().decode()


def test_a_network_that_hangs_is_told_and_replaced(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engines = Engines()

    async def work(registry: Registry) -> None:
        served = registry.get(None)
        first = engines.opened[0]
        first.mood = first.hang
        began = time.monotonic()
        running = asyncio.create_task(served.batcher.predict(PIXELS))
        await until(lambda: served.batcher.running == 1)
        waiting = asyncio.create_task(served.batcher.predict(PIXELS))
        with pytest.raises(NetworkFailed, match=bundle.ref):
            await running
        assert TIMEOUT_S < time.monotonic() - began < TIMEOUT_S + 2
        with pytest.raises(Busy) as busy:
            await waiting
        assert (busy.value.reason, busy.value.retry_after_s) == ("engine", 5)
        assert bundle.ref in str(registry.recovery.trouble())
        await until(lambda: registry.recovery.trouble() is None)
        assert served.engine is engines.opened[1]
        assert (await served.batcher.predict(PIXELS)).answer.scores.shape[0] == 5
        assert not first.closed
        first.go.set()  # late, and for nobody: it gives its memory back
        await until(lambda: first.closed)

    text = watched(bundle, tmp_path, engines, work)
    assert 'tessera_network_failures_total{model="tiny",reason="hung"} 1.0' in text
    assert "did not come back" in caplog.text


def test_one_that_hangs_does_not_keep_the_turn_of_others(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    engines = Engines()

    async def work(registry: Registry) -> None:
        await registry.add(make_bundle("other"))
        first = engines.opened[0]
        first.mood = first.hang
        hung = asyncio.create_task(registry.get("tiny").batcher.predict(PIXELS))
        await until(lambda: registry.get("tiny").batcher.running == 1)
        other = registry.get("other")
        waited = await asyncio.wait_for(other.batcher.predict(PIXELS), 5)  # waiting for a turn is not hanging
        assert waited.answer.scores.shape[0] == 5
        assert (other.trouble, other.engine) == (None, engines.opened[1])
        await asyncio.gather(hung, return_exceptions=True)
        first.go.set()

    watched(bundle, tmp_path, engines, work)


@pytest.mark.parametrize(("mood", "reason"), [(dies, "died"), (fails, "failed"), (nan, "failed")])
def test_one_that_dies_or_fails_with_everything_is_replaced(
    mood: Any, reason: str, bundle: Bundle, tmp_path: Path
) -> None:
    engines = Engines()

    async def work(registry: Registry) -> None:
        served = registry.get(None)
        engines.opened[0].mood = mood
        while served.engine is engines.opened[0]:
            with pytest.raises((NetworkFailed, RuntimeError, Busy)):
                await served.batcher.predict(PIXELS)
            await asyncio.sleep(0.01)
        await served.batcher.predict(PIXELS)
        await until(lambda: engines.opened[0].closed)

    text = watched(bundle, tmp_path, engines, work)
    assert f'tessera_network_failures_total{{model="tiny",reason="{reason}"}} 1.0' in text


def test_images_that_fail_by_themselves_cost_no_engine(bundle: Bundle, tmp_path: Path) -> None:
    engines = Engines()

    async def work(registry: Registry) -> None:
        served = registry.get(None)
        black = np.zeros_like(PIXELS)
        engines.opened[0].mood = lambda seen: nan(seen) if (seen.scores[0].argmax(0) == 4).all() else seen
        for _ in range(recovery.SUSPECT):
            with pytest.raises(NetworkNotFinite, match=bundle.ref):
                await served.batcher.predict(black)
        await until(lambda: served.batcher.failures == 0)  # its golden image has spoken for it
        assert served.trouble is None

    text = watched(bundle, tmp_path, engines, work)
    assert len(engines.opened) == 1
    assert 'tessera_network_failures_total{model="tiny",reason="not_finite"} 3.0' in text


def test_where_no_fresh_engine_works_the_default_ends_the_server_and_another_is_let_go(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    engines = Engines(None, None, *[nan] * 6)

    async def work(registry: Registry) -> None:
        await registry.add(make_bundle("other"))
        for name in ("other", "tiny"):
            served = registry.get(name)
            assert isinstance(served.engine, Moody)
            served.engine.mood = dies
            with pytest.raises(NetworkFailed, match="died"):
                await served.batcher.predict(PIXELS)
            if name == "other":
                await until(lambda: [served.name for served in registry.served] == ["tiny"])
                assert "none of 3 fresh engines works" in registry.failed["other"]
                assert registry.recovery.trouble() is None
        await until(lambda: registry.recovery.lost is not None)
        assert "started again" in str(registry.recovery.trouble())

    watched(bundle, tmp_path, engines, work)
    assert len(engines.opened) == 8
    assert all(engine.closed for engine in engines.opened)


def test_a_load_that_hangs_changes_nothing_and_keeps_nobody_waiting(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    engines = Engines()
    go = threading.Event()

    def hang(prediction: Prediction) -> Prediction:
        assert go.wait(20)
        return prediction

    async def work(registry: Registry) -> None:
        engines.moods = [hang]
        with pytest.raises(BadModel, match="TESSERA_ENGINE_TIMEOUT_S"):
            await registry.add(make_bundle("other"))
        await registry.get(None).batcher.predict(PIXELS)
        assert [served.name for served in registry.served] == ["tiny"]
        go.set()
        await until(lambda: engines.opened[1].closed)

    watched(bundle, tmp_path, engines, work)


@pytest.mark.parametrize(
    "error", [RuntimeError("a surprise"), MemoryError(), SystemExit(3), KeyboardInterrupt(), StopIteration()]
)
def test_whatever_a_start_meets_ends_it_with_a_sentence(error: BaseException, bundle: Bundle, tmp_path: Path) -> None:
    def opens(bundle: Bundle) -> Moody:
        raise error

    with pytest.raises(NoBundle, match="cannot serve: tiny"):
        load(settings_of(bundle, tmp_path), opens)


def test_a_golden_image_of_nan_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for mood in (nan, lambda seen: Prediction(seen.scores, None if seen.code is None else seen.code * np.inf)):
        with pytest.raises(NoBundle, match="NaN or infinity"):
            load(settings_of(bundle, tmp_path), Engines(mood))
