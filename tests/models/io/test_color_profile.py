"""Colors stated by code points, or by gamma and chromaticities: what they are as sRGB, computed without profiles."""

import numpy as np
import pytest

from models.io.color import converter
from models.io.color_profile import of_code_points, of_gamma
from tests.models.io import profiles

COLORS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
GRAYS = np.arange(256, dtype=np.uint8)[None]
D65 = (0.3127, 0.3290)


def off(profile: bytes | None, want: np.ndarray) -> int:
    convert = converter(profile, "RGB")
    assert convert is not None
    return int(np.abs(convert(COLORS).astype(int) - want).max())


@pytest.mark.parametrize(
    ("number", "primaries"),
    [
        (1, profiles.BT_709),
        (2, profiles.BT_709),
        (5, profiles.BT_601_625),
        (6, profiles.BT_601_525),
        (9, profiles.BT_2020),
        (12, profiles.DISPLAY_P3),
    ],
)
@pytest.mark.parametrize(
    ("transfer", "gamma"),
    [(1, None), (2, None), (6, None), (13, None), (14, None), (15, None), (4, 2.2), (5, 2.8), (8, 1.0)],
)
def test_code_points(number: int, primaries: tuple[float, ...], transfer: int, gamma: float | None) -> None:
    said: list[str] = []
    profile = of_code_points(number, transfer, said)
    assert not said
    if number <= 2 and gamma is None:
        assert profile is None
        return
    light = (COLORS / 255) ** gamma if gamma else profiles.srgb_to_light(COLORS)
    assert off(profile, profiles.as_srgb(light, primaries)) <= 2


def test_white_and_grays_stay_neutral() -> None:
    for profile in (of_code_points(11, 13), of_code_points(12, 13), of_code_points(9, 1)):
        convert = converter(profile, "RGB")
        assert convert is not None
        assert np.abs(convert(np.repeat(GRAYS[..., None], 3, 2)).astype(int) - GRAYS[..., None]).max() <= 1
        gray = converter(profile, "L")
        assert gray is None or np.abs(gray(GRAYS).astype(int) - GRAYS[..., None]).max() <= 1


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.5, 0.5])
def test_gamma(gamma: float) -> None:
    light = (COLORS / 255) ** gamma
    assert off(of_gamma(gamma), profiles.as_srgb(light, profiles.BT_709)) <= 2
    assert off(of_gamma(gamma, (*profiles.BT_2020, *D65)), profiles.as_srgb(light, profiles.BT_2020)) <= 2
    convert = converter(of_gamma(gamma), "L")
    assert convert is not None
    want = profiles.as_srgb((np.repeat(GRAYS[..., None], 3, 2) / 255) ** gamma, profiles.BT_709)
    assert np.abs(convert(GRAYS).astype(int) - want).max() <= 2


def test_what_is_nearly_srgb_or_of_no_sense_makes_no_profile() -> None:
    assert of_gamma(1e5 / 45455) is None
    assert of_gamma(1e5 / 45100, (0.6399, 0.3301, 0.2999, 0.6, 0.15, 0.06, *D65)) is None
    assert of_gamma(1e5 / 45455, (*profiles.BT_601_525, *D65)) is not None
    for exponent in (1e5, 300.0, 1e-5):
        assert of_gamma(exponent) is None
    for chromaticities in ((0.0,) * 8, (42949.67295,) * 8, (0.3, 0.3) * 4, (*profiles.BT_709, 0.9, 0.0001)):
        assert of_gamma(1.0, chromaticities) is None


def test_what_is_not_converted_is_named() -> None:
    for primaries, transfer, word in ((9, 16, "HDR (PQ)"), (2, 18, "HDR (HLG)"), (12, 17, "12/17"), (77, 13, "77/13")):
        said: list[str] = []
        assert of_code_points(primaries, transfer, said) is None
        assert len(said) == 1
        assert word in said[0]
