"""Engines, clocks and waiting, as the tests of the service share them."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import numpy as np
import pytest

from models.inference import Prediction
from models.io.samples import Choice, Decoded, Encoded
from service.engines.base import Shape
from service.inference import task
from service.repository.served_model import NetworkBatcher
from service.scheduling.batcher import Completed
from tests.tiny import MeanColor


class Clock:
    """Stands still until the test moves it."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeEngine(MeanColor):
    """The tiny network as an engine on the CPU; what tests put under a server derives from it."""

    batch = 1
    name = "fake"
    provider = "cpu"
    note: str | None = None
    exact = True

    def __init__(self) -> None:
        self.shapes: dict[Shape, None] = {}
        self.closed = False

    def warm(self, shapes: Iterable[Shape]) -> None:
        for height, width in shapes:
            self(np.zeros((1, height, width, 3), np.uint8))

    def close(self) -> None:
        self.closed = True


class Slow(FakeEngine):
    """Waits until it is told to go on.

    images  it was given;  ran  how bright the first pixel of each was, in the order they ran
    """

    def __init__(self) -> None:
        super().__init__()
        self.go, self.started = threading.Event(), threading.Event()
        self.go.set()
        self.images = 0
        self.ran: list[int] = []

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        self.images += len(pixels)
        self.started.set()
        assert self.go.wait(20)
        self.ran.extend(int(image[0, 0, 0]) for image in pixels)
        return super().__call__(pixels, code=code)


class Gate:
    """A network that holds until `open`; scores are each image's first pixel, so a mix-up shows."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []
        self.codes: list[bool] = []

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        assert self.open.wait(10)
        self.batches.append([int(image[0, 0, 0]) for image in pixels])
        self.codes.append(code)
        return echo(pixels, code=code)


def echo(pixels: Any, *, code: bool = False) -> Prediction:
    scores = pixels[:, :1, :1, :1].transpose(0, 3, 1, 2).astype(np.float32)
    return Prediction(scores, scores + 0.5 if code else None)


def picture(i: int, side: int = 8) -> Any:
    return np.full((side, side, 3), i, np.uint8)


def play(batcher: Any, scenario: Callable[[], Awaitable[Any]]) -> Any:
    """A scenario on an event loop, with a batcher (or what has `close` and `ended` like one) that ends with it."""

    async def whole() -> Any:
        try:
            async with asyncio.timeout(10):
                return await scenario()
        finally:
            batcher.close()
            await batcher.ended()

    return asyncio.run(whole())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.0002)


def wait_until(true: Callable[[], bool], limit_s: float = 20) -> None:
    """The same for a test that has no event loop."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def held(batcher: NetworkBatcher) -> asyncio.Task[Completed[Prediction]]:
    """Picture 0, in the network and held by the gate."""
    task = asyncio.create_task(batcher.predict(picture(0)))
    await until(lambda: batcher.running == 1)
    return task


async def queued(
    batcher: NetworkBatcher, pictures: list[Any], **options: Any
) -> list[asyncio.Task[Completed[Prediction]]]:
    """These wait, in order, behind what is held."""
    tasks = [asyncio.create_task(batcher.predict(pixels, **options)) for pixels in pictures]
    await asyncio.sleep(0)
    return tasks


def files_show(
    monkeypatch: pytest.MonkeyPatch, show: Callable[[bytes, Choice], Decoded], working_bytes: int = 0
) -> list[Choice]:
    """Has the service see in every file what `show` makes of it; returns what was chosen of each, in order."""
    chosen: list[Choice] = []

    def inspect(data: bytes, *, limits: Any, choice: Choice) -> Encoded:
        chosen.append(choice)
        return Encoded((0, 0), working_bytes, lambda: show(data, choice))

    monkeypatch.setattr(task, "inspect", inspect)
    return chosen
