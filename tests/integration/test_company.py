"""Everybody gets their own answer, whatever comes and whoever comes along: at random, and bit for bit."""

import asyncio
import math
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import assign
from models.bundle import Bundle
from models.inference import Prediction
from models.preprocess import fit
from service.engines import open_engine
from service.errors import DeadlinePassed
from service.repository.served_model import NetworkBatcher
from service.settings import Settings, embedded
from tests.service.fakes import Clock, play, queued
from tests.tiny import bands


@pytest.mark.parametrize("seed", range(6))
def test_everybody_gets_their_own_answer_once_whatever_comes(seed: int) -> None:
    """Shapes, keys, priorities, deadlines, cancellations, a network that fails and one that is small: at random."""
    chance = random.Random(seed)
    room = chance.choice([1, 3, 8, 100])
    ran: list[int] = []

    def number(pixels: Any) -> int:
        return int(pixels[0, 0, 0]) + 256 * int(pixels[0, 0, 1])

    def network(pixels: Any, *, code: bool = False) -> Prediction:
        numbers = [number(pixels) for pixels in pixels]
        if len(pixels) > room:
            raise MemoryError
        ran.extend(numbers)
        if any(n % 97 == 0 for n in numbers):
            raise RuntimeError(str(numbers))
        scores = np.array(numbers, np.float32)[:, None, None, None]
        return Prediction(scores, -scores if code else None)

    sizes: list[int] = []
    clock = Clock()
    batcher = NetworkBatcher(network, max_batch_size=8, on_batch=lambda size, reason: sizes.append(size), clock=clock)
    answered, failed, late, cancelled = [], [], [], []

    async def client(i: int) -> None:
        side = chance.choice([8, 8, 16])
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = i % 256, i // 256
        wants_code = chance.random() < 0.3
        deadline = chance.choice([math.inf, math.inf, clock.now + chance.random()])
        try:
            got = await batcher.predict(
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
            assert got.answer.scores.item() == i
            if wants_code:
                assert got.answer.code is not None
                assert got.answer.code.item() == -i
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


def alone_and_together(engine: Any, pictures: list[Any], most: int) -> tuple[list[Prediction], list[Prediction], int]:
    """What each picture gets alone, and in batches of up to `most`; and the largest of those."""

    def answers(most: int) -> tuple[list[Prediction], int]:
        sizes: list[int] = []
        go = threading.Event()

        def network(pixels: Any, *, code: bool = False) -> Prediction:
            assert go.wait(10)
            encoded: Prediction = engine(pixels, code=code)
            return encoded

        batcher = NetworkBatcher(network, max_batch_size=most, on_batch=lambda size, reason: sizes.append(size))

        async def scenario() -> list[Prediction]:
            tasks = await queued(batcher, pictures, code=True)
            go.set()
            return [done.answer for done in await asyncio.gather(*tasks)]

        got: list[Prediction] = play(batcher, scenario)
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
        box = fit(pixels, bundle.manifest.input).box
        labels = assign.labels(many.scores, pixels.shape[:2], box)
        assert (labels == assign.labels(one.scores, pixels.shape[:2], box)).all()
        seen.add(labels.tobytes())
    assert len(seen) > 20


def test_labels_of_the_embedded_model_do_not_depend_on_the_company() -> None:
    bundle = Bundle.load(embedded()[0])
    engine = open_engine(bundle, Settings(engine="onnxruntime", threads=1))
    photo = fit(bundle.golden.image, bundle.manifest.input).pixels
    pictures = [photo, photo[::-1].copy(), photo[:, ::-1].copy(), photo // 2]
    for _ in range(5):  # on a busy machine the first may go before the others come
        alone, together, largest = alone_and_together(engine, pictures, 4)
        if largest >= 3:
            break
    assert largest >= 3
    for one, many in zip(alone, together, strict=True):
        assert (one.scores.argmax(0) == many.scores.argmax(0)).all()
        assert np.abs(one.scores - many.scores).max() < 1e-4
