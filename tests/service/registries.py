"""A registry driven by a test: loaded, held open around a scenario, on engines that count themselves."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from models.bundle import Bundle
from models.inference import Prediction
from models.preprocess import InputSpec, fit
from service.metrics import Metrics
from service.repository.registry import Registry
from service.settings import Settings
from tests.service.fakes import FakeEngine
from tests.tiny import bands

T = TypeVar("T")
PIXELS = fit(bands(), InputSpec(size=(64, 64), resize="short_side", multiple=8, max_side_px=512)).pixels


class Wrong(FakeEngine):
    """Computes something else than training did."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        scores = super().__call__(pixels, code=code).scores
        return Prediction(np.roll(scores, 1, axis=1))


class Engine(FakeEngine):
    """Counts those that are open, and knows whether it was used after its end."""

    open: ClassVar[weakref.WeakSet["Engine"]] = weakref.WeakSet()

    def __init__(self) -> None:
        super().__init__()
        Engine.open.add(self)

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        assert not self.closed
        return super().__call__(pixels, code=code)

    def close(self) -> None:
        assert not self.closed
        super().close()
        Engine.open.discard(self)


def load(settings: Settings, *engine: Callable[[Any], Any]) -> Registry:
    async def whole() -> Registry:
        registry = Registry(settings, Metrics(), *engine)
        await registry.load()
        await registry.close()
        return registry

    return asyncio.run(whole())


def within(
    settings: Settings, work: Callable[[Registry], Awaitable[T]], *engine: Callable[[Any], Any], limit_s: float = 20
) -> T:
    """What `work` makes of a registry that has loaded its bundles."""

    async def whole() -> T:
        registry = Registry(settings, Metrics(), *engine)
        await registry.load()
        assert registry.loaded
        try:
            return await asyncio.wait_for(work(registry), limit_s)
        finally:
            await registry.close()

    return asyncio.run(whole())


async def settled(registry: Registry) -> None:
    """Until what was replaced is put away."""
    while registry.leaving:
        await asyncio.sleep(0.005)


def settings_of(bundle: Bundle, tmp_path: Path, **more: Any) -> Settings:
    return Settings(bundles=(bundle.path,), state=tmp_path / "state", threads=1, engine="onnxruntime", **more)
