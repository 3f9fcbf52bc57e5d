"""A linear layer learns what a code holds, and only from labelled pixels."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from models.errors import TesseraError
from training.evaluation import linear_probe
from training.evaluation.linear_probe import Lesson, LinearProbe, train

WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "BATCH_SIZE", 4)


def lesson(i: int, box: tuple[float, float, float, float] = WHOLE) -> Lesson:
    """Three classes in a code of four channels, cells of 4×4 pixels; a margin is ignored."""
    rng = np.random.default_rng(i)
    cells = rng.integers(0, 3, (6, 8))
    code = rng.normal(0, 0.5, (4, 6, 8)).astype(np.float32)
    code[:3] += 5 * np.moveaxis(np.eye(3, dtype=np.float32)[cells], -1, 0)
    labels = np.kron(cells, np.ones((4, 4), np.int64)).astype(np.uint8)
    top, left, tall, wide = (round(v * side) for v, side in zip(box, (24, 32, 24, 32), strict=True))
    labels = labels[top : top + tall, left : left + wide]
    labels[:2] = 255
    return Lesson(code, labels, box)


def learned(make=lesson, count: int = 6, classes: int = 3, steps: int = 120) -> LinearProbe:
    return train(
        make, count, classes, steps=steps, seed=3, device=torch.device("cpu"), console=Console(file=io.StringIO())
    )


@pytest.mark.parametrize("box", [WHOLE, (0.0, 0.25, 1.0, 0.5)])
def test_it_learns_what_is_there(box) -> None:
    probe = learned(lambda i: lesson(i, box))
    unseen = lesson(99)
    logits = probe.logits(unseen.code)
    assert logits.shape == (3, 6, 8)
    assert (logits.argmax(0) == unseen.labels[2::4, ::4]).mean() > 0.95
    assert probe.images == 6
    assert probe.loss < np.log(3)  # what guessing costs


def test_the_seed_decides() -> None:
    one, other = learned(steps=5), learned(steps=5)
    assert (one.weight == other.weight).all()
    assert (one.bias == other.bias).all()


def test_images_that_cannot_be_used_are_left_out() -> None:
    assert learned(lambda i: None if i == 2 else lesson(i), steps=2).images == 5


def test_ignored_pixels_teach_nothing() -> None:
    def blank(i: int) -> Lesson:
        one = lesson(i)
        return Lesson(one.code, np.full_like(one.labels, 255), one.box)

    with pytest.raises(TesseraError, match="no labelled pixel"):
        learned(blank)
    with pytest.raises(TesseraError, match="no labelled pixel"):
        learned(lambda i: None)
