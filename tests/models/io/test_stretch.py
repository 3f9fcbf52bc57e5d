"""Samples of other depths to 8 bits: the rules, value by value."""

import numpy as np
import pytest

from models.io import stretch
from models.io.samples import Depth, UnsupportedImage
from models.native import bindings


def to_8_bit(samples: np.ndarray, depth: Depth) -> tuple[np.ndarray, str | None]:
    shown = stretch.to_8_bit(samples, depth)
    return shown.image, shown.rule


@pytest.fixture(params=["compiled", "numpy"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        monkeypatch.setattr(bindings, "_library", lambda: None)
    elif not bindings.compiled():
        pytest.skip("no compiler was there when this was installed")
    return


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


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("depth", ["percentile", "minmax"])
def test_ranges_are_numpys_of_all_types(kind: str, depth: Depth) -> None:
    samples = np.random.default_rng(0).integers(0, 120, (50, 40, 3)) * (1 if kind[0] == "u" else -1) + 3
    samples = samples.astype(kind)
    samples[0, 0, 0] = 127
    shown = stretch.to_8_bit(samples, depth, keep_bytes=False).image
    values = samples.astype(np.float32)
    low, high = np.percentile(values, (2, 98) if depth == "percentile" else (0, 100))
    assert np.abs(shown - np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255))).max() <= 1


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("kind", ["u2", "u4", "f4"])
def test_in_the_samples_own_memory(kind: str) -> None:
    samples = np.random.default_rng(0).integers(0, 60000, (700, 900, 3)).astype(kind)
    block = np.empty(samples.nbytes, np.uint8)
    own = block.view(kind).reshape(samples.shape)
    own[:] = samples
    got = stretch.to_8_bit(own, "percentile", out=block[: samples.size].reshape(samples.shape)).image
    assert np.shares_memory(got, block)
    assert (got == to_8_bit(samples, "percentile")[0]).all()


def test_what_holds_no_data_is_in_no_range() -> None:
    samples = np.arange(100, dtype=np.float32).reshape(10, 10, 1)
    samples[0, :5] = np.nan
    valid = np.ones((10, 10), bool)
    valid[9] = False
    shown = stretch.to_8_bit(samples, "minmax", valid=valid)
    assert shown.rule == "minmax: 5..89 → 0..255"
    assert shown.valid is not None
    assert (~shown.valid).sum() == 15
    assert (shown.image[0, :5] == 0).all()
    nothing = stretch.to_8_bit(np.full((2, 2, 1), np.nan), "percentile")
    assert nothing.valid is not None
    assert not nothing.valid.any()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(UnsupportedImage, match="complex"):
        to_8_bit(np.zeros((2, 2, 1), np.complex64), "percentile")
