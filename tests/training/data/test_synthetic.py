"""The drawn street: the same for a seed, at any size, with its parts where a street has them."""

import numpy as np

from training.data.synthetic import street


def test_a_seed_draws_one_street() -> None:
    assert (street((90, 120), seed=3) == street((90, 120), seed=3)).all()
    assert (street((90, 120), seed=3) != street((90, 120), seed=4)).any()


def test_sky_is_blue_and_road_is_gray() -> None:
    image = street((120, 160)).astype(int)
    sky, road = image[5:30, 60:100].mean((0, 1)), image[100:118, 40:70].mean((0, 1))
    assert sky[2] > sky[0] + 20
    assert np.ptp(road) < 25
    assert sky.mean() > road.mean() + 40
