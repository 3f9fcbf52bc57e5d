"""Pictures in windows: every row once, data where it was, and the queue's way as the engine's own."""

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.deadline import Deadline, DeadlineExceeded
from models.inference import Prediction, segment
from models.io.samples import Decoded, ImageTooLarge
from models.prototypes import Classifier, Taught
from service.errors import Busy, NetworkNotFinite
from service.inference import windowed
from service.inference.windowed import ArrayRows, on_engine, parts, through_queue
from service.repository.served_model import NetworkBatcher
from tests.service.fakes import FakeEngine
from tests.tiny import MeanColor, bands


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def picture(height: int = 200, width: int = 304) -> np.ndarray:
    return bands(height, width)


def test_labels_are_those_of_one_pass_at_the_same_scale(bundle: Bundle) -> None:
    image = picture()
    found = list(parts(ArrayRows(Decoded(image)), bundle.manifest, on_engine(MeanColor(), 3), code=True))
    labels = np.concatenate([part.labels() for part in found])
    assert labels.shape == image.shape[:2]
    expected = np.repeat([0, 1, 2, 3, 4], [61, 61, 61, 61, 60])
    inside = np.abs(np.diff(expected, append=4, prepend=0)[:-1]) == 0
    away = np.convolve(~inside, np.ones(33), "same") == 0
    assert (labels[:, away] == expected[away]).all()
    assert np.concatenate([part.margin() for part in found]).shape == labels.shape
    rows = sum(len(part.margin(full=False)) for part in found)
    assert abs(rows - 200 / 8) <= len(found)
    assert segment(bundle, MeanColor(), image).shape == labels.shape


def test_classes_are_told_by_the_code_and_by_where_a_place_lies_in_the_whole(bundle: Bundle) -> None:
    image = picture()
    taught = Classifier.fit(bundle.centroids, [Taught(3, (0, 1)), Taught(9, (2, 4))], [])
    assert taught is not None
    rows = ArrayRows(Decoded(image))
    labels, margin = windowed.labelled(rows, bundle.manifest, on_engine(MeanColor()), margin="full", classifier=taught)
    assert (labels[:, 20:110] == 3).all()
    assert (labels[:, 140:170] == 9).all()
    assert margin is not None
    assert margin.shape == labels.shape
    assert margin[:, 20:40].min() > 0.2

    class Upper:
        """Says class 1 of the upper half of the picture that a grid is a part of, and class 2 of the lower one."""

        ids = np.array([1, 2], np.uint8)

        def scores(self, code: Any, scores: Any, box: Any) -> Any:
            _, height, width = scores.shape
            y = ((np.arange(height) + 0.5) / height - box[0]) / box[2]
            upper = np.broadcast_to((0.5 - y)[:, None], (height, width))
            return np.stack([upper, -upper])

    halves, _ = windowed.labelled(
        rows,
        bundle.manifest,
        on_engine(MeanColor()),
        margin=None,
        classifier=Upper(),  # type: ignore[arg-type]
    )
    assert (halves[:99] == 1).all()
    assert (halves[101:] == 2).all()


def test_where_there_is_no_data_is_told_of_every_row_and_windows_without_any_are_left_out(bundle: Bundle) -> None:
    valid = np.ones((200, 304), bool)
    valid[90:140, 20:40] = False
    valid[:, 150:] = False
    asked = 0

    class Counting(MeanColor):
        def __call__(self, pixels: np.ndarray, *, code: bool = False) -> Prediction:
            nonlocal asked
            asked += len(pixels)
            return super().__call__(pixels, code=code)

    source = ArrayRows(Decoded(picture(), valid))
    told: list[tuple[int, int]] = []
    found = list(parts(source, bundle.manifest, on_engine(Counting()), skip=True, progress=lambda *n: told.append(n)))
    seen = np.concatenate([np.ones(part.strip.size, bool) if part.valid is None else part.valid for part in found])
    assert (seen == valid).all()
    total = len(windowed.layout_of((200, 304), bundle.manifest))
    assert 0 < asked < total
    assert told[-1][1] == total
    assert len(told) == asked
    kept = np.concatenate([part.labels() for part in found])[:, :140]
    plain = np.concatenate([part.labels() for part in parts(source, bundle.manifest, on_engine(MeanColor()))])[:, :140]
    assert (kept == plain).all()


def test_an_empty_row_of_windows_is_a_row_all_the_same(bundle: Bundle) -> None:
    valid = np.ones((400, 80), bool)
    valid[:200] = False
    source = ArrayRows(Decoded(picture(400, 80), valid))
    found = list(parts(source, bundle.manifest, on_engine(MeanColor()), skip=True, code=True))
    assert np.concatenate([part.labels() for part in found]).shape == (400, 80)
    assert found[-1].valid is None


def test_it_stops_when_the_time_is_up_and_says_what_a_network_cannot(bundle: Bundle) -> None:
    until = Deadline()
    going = parts(ArrayRows(Decoded(picture())), bundle.manifest, on_engine(MeanColor()), until=until)
    next(going)
    until.cancel()
    with pytest.raises(DeadlineExceeded):
        next(going)

    def broken(pixels: np.ndarray, *, code: bool = False) -> Prediction:
        return Prediction(MeanColor()(pixels).scores * np.nan)

    with pytest.raises(NetworkNotFinite):
        list(parts(ArrayRows(Decoded(picture())), bundle.manifest, on_engine(broken)))


def test_more_windows_than_are_ever_read_are_refused(bundle: Bundle) -> None:
    with pytest.raises(ImageTooLarge, match="pyramid=1"):
        windowed.layout_of((900_000, 900_000), bundle.manifest)
    wide = ArrayRows(Decoded(np.broadcast_to(np.zeros(3, np.uint8), (300, 8_000_000, 3))))
    with pytest.raises(ImageTooLarge, match="columns"):
        next(parts(wide, bundle.manifest, on_engine(MeanColor())))


def test_through_the_queue_it_is_the_same_and_a_failure_is_everybodys(bundle: Bundle) -> None:
    class Flaky(FakeEngine):
        left = 10**6

        def __call__(self, pixels: np.ndarray, *, code: bool = False) -> Prediction:
            self.left -= 1
            if self.left < 0:
                raise Busy("no", reason="memory")
            return super().__call__(pixels, code=code)

    engine = Flaky()

    async def scenario() -> np.ndarray:
        served: Any = SimpleNamespace(batcher=NetworkBatcher(engine, max_batch_size=2))
        loop = asyncio.get_running_loop()
        predict = through_queue(served, loop, key="a", priority=0, deadline=math.inf)

        def work() -> np.ndarray:
            found = parts(ArrayRows(Decoded(picture())), bundle.manifest, predict)
            return np.concatenate([part.labels() for part in found])

        labels = await asyncio.to_thread(work)
        engine.left = 3
        with pytest.raises(Busy):
            await asyncio.to_thread(work)
        assert served.batcher.waiting == 0
        served.batcher.close()
        return labels

    alone = parts(ArrayRows(Decoded(picture())), bundle.manifest, on_engine(MeanColor()))
    assert (asyncio.run(scenario()) == np.concatenate([part.labels() for part in alone])).all()
