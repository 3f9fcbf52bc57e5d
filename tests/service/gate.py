"""A network that runs when the test says so, and a batcher around it: what the tests of batches share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from models.inference import Prediction
from service.scheduling.batcher import Batched, Batcher


class Gate:
    """An encoder that holds until `open`; scores are each image's first pixel, so a mix-up shows."""

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
