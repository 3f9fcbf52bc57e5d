"""Square crops: the middle, the corners, and colors that nearest must not mix."""

import numpy as np
import pytest

from training.data.crops import five, square


@pytest.mark.parametrize("size", [(40, 100), (100, 40), (16, 17), (64, 64)])
def test_always_the_size_asked_for(size):
    image = np.zeros((*size, 3), np.uint8)
    for how in ("bilinear", "nearest"):
        assert square(image, 32, how).shape == (32, 32, 3)


def test_square_is_the_middle():
    image = np.zeros((64, 192, 3), np.uint8)
    image[:, 64:128] = 255
    assert (square(image, 32)[:, 2:-2] == 255).all()


def test_nearest_mixes_no_colors():
    image = (np.indices((50, 70)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert set(np.unique(square(image, 33, "nearest"))) <= {0, 255}
    assert len(np.unique(square(image, 33))) > 2


def test_five_are_four_corners_and_the_center():
    rows, columns = np.indices((40, 60))
    image = np.stack([rows, columns, rows], 2).astype(np.uint8)
    crops = five(image)
    assert [crop.shape for crop in crops] == [(20, 30, 3)] * 5
    assert [tuple(crop[0, 0, :2]) for crop in crops] == [(0, 0), (0, 30), (20, 0), (20, 30), (10, 15)]
    assert [crop.shape for crop in five(image[:1, :1])] == [(1, 1, 3)] * 5
