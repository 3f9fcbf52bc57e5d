"""A large photo in windows: the same labels as whole, and no borders inside."""

import time
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from models.crf import dense, tiled
from models.crf.params import PUBLISHED, CRFParams, Refined
from models.crf.tiled import Span
from models.deadline import DeadlineExceeded

solve = partial(dense.refine, return_marginals=True)


@pytest.mark.parametrize("length", [1, 30, 64, 65, 100, 333])
def test_spans_cover_everything_and_overlap(length: int) -> None:
    found = tiled.spans(length, 64, 16)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(0 < stop - start <= 64 for start, stop in found)
    assert all(15 <= end - begin < 32 for (_, end), (begin, _) in pairwise(found))
    total = np.zeros(length)
    for i, (start, stop) in enumerate(found):
        total[start:stop] += tiled._ramp(found, i)
    np.testing.assert_allclose(total, 1, atol=1e-6)


def drawn(height: int, width: int, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Stripes of k colors with a wavy border, and probabilities that are wrong at one pixel in five."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    truth = (((x + 8 * np.sin(y / 9)) // 25) % k).astype(np.int64)
    colors = rng.integers(0, 256, (k, 3))[truth] + rng.integers(-2, 3, (height, width, 3))
    seen = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, k, truth.shape), truth)
    probabilities = np.full((k, height, width), 0.2, np.float32)
    np.put_along_axis(probabilities, seen[None], 0.4, axis=0)
    return np.clip(colors, 0, 255).astype(np.uint8), probabilities


def test_windows_give_what_the_whole_gives() -> None:
    photo, probabilities = drawn(120, 150)
    asked: list[tuple[Span, Span]] = []

    def part(rows: Span, columns: Span) -> np.ndarray:
        asked.append((rows, columns))
        return probabilities[:, slice(*rows), slice(*columns)]

    params = CRFParams(bilateral_sxy=10)
    labels = tiled.refine(part, photo, params, solve, window=80, overlap=24)
    whole = dense.refine(probabilities, photo, params).labels
    assert len(asked) == 6
    assert labels.shape == whole.shape
    assert (probabilities.argmax(axis=0) != whole).mean() > 0.1, "a CRF with work to do"
    assert (labels == whole).mean() > 0.999


def test_one_window_is_the_whole() -> None:
    photo, probabilities = drawn(60, 50)
    labels = tiled.refine(lambda rows, columns: probabilities, photo, PUBLISHED, solve, window=64, overlap=16)
    np.testing.assert_array_equal(labels, dense.refine(probabilities, photo).labels)


def test_the_deadline_holds_for_all_windows() -> None:
    photo, probabilities = drawn(60, 50)
    with pytest.raises(DeadlineExceeded):
        tiled.refine(lambda rows, columns: probabilities, photo, PUBLISHED, solve, deadline=0.0)


def test_what_cannot_be_done_in_time_is_not_gone_on_with() -> None:
    photo, probabilities = drawn(120, 150)
    asked = []

    def slow(given: np.ndarray, part: np.ndarray, params: CRFParams, *, deadline: float) -> Refined:
        asked.append(deadline)
        time.sleep(0.1)
        return Refined(given[0].astype(np.uint8), given.copy())

    def part(rows: Span, columns: Span) -> np.ndarray:
        return probabilities[:, slice(*rows), slice(*columns)]

    with pytest.raises(DeadlineExceeded):
        tiled.refine(part, photo, PUBLISHED, slow, window=80, overlap=24, deadline=time.monotonic() + 0.3)
    assert len(asked) == 1  # six would take 0.6 s
    tiled.refine(part, photo, PUBLISHED, slow, window=80, overlap=24, deadline=time.monotonic() + 20)
    assert len(asked) == 7
