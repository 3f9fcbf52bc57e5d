"""Varied, odd and repeated photos, told by what was measured of each."""

import numpy as np
import pytest
from PIL import Image

from models.io.decode import decode
from models.io.encode import encode
from training.data.synthetic import street
from training.export.photo_stats import PhotoStats, thumbnail


def stats(shares: list[list[float]], confidence: list[float], thumbnails: list[np.ndarray] | None = None) -> PhotoStats:
    """Photos of even numbers, as of a folder of which every second one was measured."""
    n = len(shares)
    blank = [np.full((16, 16, 3), 20 * i % 256, np.uint8) for i in range(n)]
    cells = 100 * np.array(shares)
    return PhotoStats(
        2 * np.arange(n),
        np.array(shares, np.float32),
        cells,
        cells * np.array(confidence)[:, None],
        np.stack(thumbnails or blank),
    )


def test_varied_photos_begin_with_the_commonest_and_go_far() -> None:
    found = stats([[0.5, 0.5, 0], [1, 0, 0], [0.5, 0.45, 0.05], [0, 1, 0], [0, 0, 1]], [0.5] * 5)
    assert found.varied(1) == [4]  # next to the mean of all
    assert set(found.varied(4)) == {4, 2, 6, 8}
    assert sorted(found.varied(8)) == [0, 2, 4, 6, 8]


def test_odd_photos_are_the_least_sure() -> None:
    found = stats([[1.0, 0]] * 4, [0.4, 0.1, 0.3, 0.2])
    assert [number for number, _ in found.odd(2)] == [2, 6]
    assert found.odd(1)[0][1] == pytest.approx(0.1)


def test_two_photos_in_a_hundred_lie_below_the_threshold() -> None:
    confidence = np.linspace(0, 1, 101).tolist()
    measured = stats([[1.0, 0]] * 101, confidence, [np.zeros((16, 16, 3), np.uint8)] * 101)
    found = measured.quantiles
    assert found["threshold"] == measured.familiarity.threshold == pytest.approx(0.02)
    assert found["q50"] == pytest.approx(0.5)
    assert (found["q0"], found["q100"]) == (0, 1)
    assert measured.familiarity.of(0.25) == pytest.approx(0.25)


def test_a_photo_is_unfamiliar_for_what_it_shows_too_much_of() -> None:
    """All are equally clear; half of all photos' pixels are of each cluster."""
    found = stats([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]], [0.8] * 4)
    assert found.sureness.tolist() == pytest.approx([0.8, 0.8, 0.4, 0.4])
    assert [number for number, _ in found.odd(2)] == [4, 6]


def test_a_picture_saved_again_is_nearly_the_same_and_another_one_is_not() -> None:
    photo, other = street((120, 160), seed=1), street((120, 160), seed=2)
    again = decode(encode(photo, "jpeg", 60)).image
    smaller = np.asarray(Image.fromarray(photo).resize((100, 75)))
    found = stats([[1.0, 0]] * 4, [0.5] * 4, [thumbnail(one) for one in (photo, other, again, smaller)])
    pairs = found.near_duplicates()
    assert {(pair.first, pair.second) for pair in pairs} == {(0, 4), (0, 6)} or {
        (pair.first, pair.second) for pair in pairs
    } == {(0, 4), (4, 6)}
    assert pairs[0].difference <= pairs[1].difference < 4


def test_what_a_page_is_told_is_plain_numbers() -> None:
    facts = stats([[0.5, 0.5], [1, 0]], [0.2, 0.1], [np.zeros((16, 16, 3), np.uint8)] * 2).facts()
    assert facts == {
        "varied": [0, 2] if facts["varied"][0] == 0 else [2, 0],
        "odd": [(2, pytest.approx(0.075)), (0, pytest.approx(0.15))],
        "near_duplicates": [[0, 2, 0.0]],
    }
