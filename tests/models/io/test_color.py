"""Color profiles: sRGB's cost nothing, others are converted, wrong ones are left out with a word."""

import itertools
import struct
import threading

import numpy as np
import pytest

from models.io.color import converter
from tests.models.io import profiles

COLORS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def off(got: np.ndarray, want: np.ndarray) -> int:
    return int(np.abs(got.astype(int) - want).max())


@pytest.mark.parametrize(
    ("matrix", "gamma"), [(profiles.WIDE, 1.8), (profiles.SRGB, 1.0), (profiles.SRGB[:, ::-1], 2.2)]
)
def test_colors_are_converted_as_the_standards_compute_them(matrix: np.ndarray, gamma: float) -> None:
    said: list[str] = []
    convert = converter(profiles.rgb(matrix, gamma), "RGB", said)
    assert convert is not None
    assert off(convert(COLORS), profiles.shown(COLORS, matrix, gamma)) <= 2
    assert not said


def test_an_srgb_profile_needs_no_conversion() -> None:
    assert converter(profiles.srgb(), "RGB") is None
    assert converter(profiles.srgb(), "L") is None
    assert converter(None, "RGB") is None
    assert converter(b"", "CMYK") is None
    assert converter(profiles.rgb(profiles.SRGB, 2.2), "RGB") is not None  # near sRGB, but not in the shadows


def test_gray_samples_of_a_gray_and_of_an_rgb_profile() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    neutral = np.repeat(ramp[..., None], 3, axis=2)
    for profile, want in (
        (profiles.gray(1.0), profiles.shown(neutral, profiles.SRGB, 1.0)),
        (profiles.gray(1.8), profiles.shown(neutral, profiles.SRGB, 1.8)),
        (profiles.rgb(gamma=1.8), profiles.shown(neutral, profiles.WIDE, 1.8)),
    ):
        convert = converter(profile, "L")
        assert convert is not None
        assert off(convert(ramp), want) <= 2


def inks() -> np.ndarray:
    """L, a, b of sixteen mixtures: each ink takes light, none has a hue of its own but cyan."""
    lab = np.zeros((2, 2, 2, 2, 3))
    for c, m, y, k in itertools.product(range(2), repeat=4):
        lab[c, m, y, k] = (100 - 20 * (c + m + y) - 40 * k, -40 * c * (1 - k), 0)
    return lab


def test_inks_are_what_their_profile_says() -> None:
    convert = converter(profiles.cmyk(inks()), "CMYK")
    assert convert is not None
    shown = convert(np.array([[[0, 0, 0, 0], [0, 255, 255, 0], [0, 255, 0, 255], [255, 0, 0, 0]]], np.uint8))[0]
    assert off(shown[0], np.array([255, 255, 255])) <= 2
    assert off(shown[1], np.array([145, 145, 145])) <= 16  # L 60; black point compensation moves it a little
    assert shown[2].max() < shown[1].min()
    assert shown[3][0] < shown[3][1]  # cyan


def test_lab_needs_no_profile() -> None:
    convert = converter(None, "LAB")
    assert convert is not None
    shown = convert(np.array([[[255, 128, 128], [0, 128, 128], [137, 128, 128], [137, 190, 128]]], np.uint8))[0]
    assert off(shown[:3], np.array([[255] * 3, [0] * 3, [128] * 3])) <= 2  # L 53.6 is the gray 128
    assert shown[3][0] > 180 > 100 > shown[3][1]


def test_profiles_that_say_nothing_are_left_out_with_a_word() -> None:
    good = profiles.rgb()
    named = good[:12] + b"nmcl" + good[16:]
    odd = {
        "damaged": [b"x" * 3000, good[:100], good[:200], good[:36] + b"acpp" + good[40:]],
        "CMYK samples": [profiles.cmyk(inks())],
        "GRAY samples": [profiles.gray()],
        "was left out": [named, good[:16] + b"\xff\xfe\0\1" + good[20:]],
        "MiB": [good + bytes(5 * 2**20)],
    }
    for word, broken in odd.items():
        for profile in broken:
            said: list[str] = []
            assert converter(profile, "RGB", said) is None
            assert len(said) == 1
            assert word in said[0]
            again: list[str] = []
            converter(profile, "RGB", again)
            assert again == said
    said = []
    assert converter(good, "CMYK", said) is None
    assert "not for CMYK" in said[0]


def test_long_chains_of_floats_are_not_walked() -> None:
    """D2B0 stands for A2B0 where both are: the one that is bounded is read."""
    good = profiles.rgb()
    count = struct.unpack_from(">I", good, 128)[0]
    at = good.index(b"wtpt")
    assert at < 132 + 12 * count
    disguised = good[:at] + b"D2B0" + good[at + 4 :]
    convert, plain = converter(disguised, "RGB"), converter(good, "RGB")
    assert convert is not None
    assert plain is not None
    assert off(convert(COLORS), plain(COLORS)) <= 1


def test_threads_share_a_converter_and_strips_change_nothing() -> None:
    convert = converter(profiles.rgb(), "RGB")
    assert convert is not None
    big = np.random.default_rng(1).integers(0, 256, (700, 500, 3), dtype=np.uint8)
    want = convert(big)
    assert (np.concatenate([convert(big[:101]), convert(big[101:])]) == want).all()
    got: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: got.append(convert(big))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert all((one == want).all() for one in got)


def test_what_is_remembered_is_bounded() -> None:
    from models.io import color

    for n in range(2 * color._KEPT):
        converter(profiles.rgb(gamma=1 + n / 100), "RGB")
    assert len(color._kept) <= color._KEPT
