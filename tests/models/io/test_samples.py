"""Samples of other depths to 8 bits: the rules, value by value."""

import numpy as np
import pytest

from models.io.samples import ImageError, UnsupportedImage, to_8_bit


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_from_the_2nd_to_the_98th_percentile(kind: type) -> None:
    """Of 0..100, one each, 2 and 98 are the percentiles: v becomes (v - 2) · 255 / 96; beyond them all is the same."""
    samples = np.random.default_rng(0).permutation(101).astype(kind).reshape(101, 1, 1)
    image, rule = to_8_bit(samples, "percentile")
    assert rule == "percentile 2–98: 2..98 → 0..255"
    by_hand = {0: 0, 2: 0, 3: 3, 26: 64, 50: 128, 74: 191, 97: 252, 98: 255, 100: 255}
    assert {value: int(image[samples == value][0]) for value in by_hand} == by_hand


def test_the_percentiles_are_those_of_all_bands_together() -> None:
    """Of 0..50 in three bands, 1 and 49 are the percentiles."""
    image, rule = to_8_bit(np.arange(51, dtype=np.uint16).reshape(17, 1, 3), "percentile")
    assert rule == "percentile 2–98: 1..49 → 0..255"
    assert image[[0, 8, 16], 0].tolist() == [[0, 0, 5], [122, 128, 133], [250, 255, 255]]


def test_few_values_are_spread_all_the_same() -> None:
    samples = np.full((10, 10, 1), 500, np.uint16)
    samples[0, 0] = 700
    assert to_8_bit(samples, "percentile")[0].ravel()[:2].tolist() == [255, 0]
    assert (to_8_bit(samples[1:], "percentile")[0] == 0).all()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ImageError, match="finite"):
        to_8_bit(np.full((2, 2), np.nan), "percentile")
    with pytest.raises(UnsupportedImage, match="complex"):
        to_8_bit(np.zeros((2, 2), np.complex64), "percentile")
