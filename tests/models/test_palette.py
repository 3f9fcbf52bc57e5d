"""Colors: stable, distinct, and drawn where they should be."""

import numpy as np
import pytest

from models import palette


def test_more_clusters_keep_the_earlier_colors() -> None:
    assert (palette.distinct(64)[:12] == palette.distinct(12)).all()


def test_colors_differ_for_every_kind_of_eye() -> None:
    colors = palette.distinct(27)
    for vision, apart in ((None, 8), (palette._DEUTERANOPIA, 5), (palette._PROTANOPIA, 5)):
        lab = palette._lab(colors, vision)
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(27)
        assert distance.min() > apart


def test_255_clusters_have_colors() -> None:
    assert palette.distinct(255).shape == (255, 3)


def test_hex_there_and_back() -> None:
    for color in palette.distinct(20):
        assert (palette.from_hex(palette.to_hex(color)) == color).all()
    for wrong in ("red", "#12345", "#gggggg", "1234567"):
        with pytest.raises(ValueError, match=r"color|hex"):
            palette.from_hex(wrong)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (20, 30)).astype(np.uint8)
    return rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), labels, palette.distinct(4)


def test_overlay_runs_from_the_photo_to_the_colors(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, labels, colors = scene
    assert (palette.overlay(image, labels, colors, 0.0) == image).all()
    assert (palette.overlay(image, labels, colors, 1.0) == colors[labels]).all()
    half = palette.overlay(image, labels, colors, 0.5).astype(int)
    assert np.abs(half - (image.astype(int) + colors[labels]) / 2).max() <= 1


def test_only_leaves_the_rest_alone(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, labels, colors = scene
    shown = palette.overlay(image, labels, colors, 1.0, only=[2])
    assert (shown[labels != 2] == image[labels != 2]).all()
    assert (shown[labels == 2] == colors[2]).all()


def test_a_color_apart_from_others_is_one_of_the_proposed_and_not_like_them() -> None:
    assert np.array_equal(palette.apart(np.zeros((0, 3), np.uint8)), palette.distinct(1)[0])
    chosen = palette.distinct(1)
    for _ in range(20):
        chosen = np.concatenate([chosen, palette.apart(chosen)[None]])
    assert len(np.unique(chosen, axis=0)) == 21
