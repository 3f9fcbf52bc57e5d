"""The way to the network's size and back."""

import numpy as np

from models.preprocess import InputSpec, fit, fitted_size


def test_short_side_keeps_the_aspect_and_the_multiple() -> None:
    spec = InputSpec(size=(320, 320), multiple=8)
    assert fitted_size((360, 480), spec) == (320, 424)
    assert fitted_size((1, 1), spec) == (320, 320)
    assert fitted_size((20000, 1), spec) == (2048, 320)
    assert fitted_size((1, 20000), spec) == (320, 2048)


def test_letterbox_remembers_where_the_image_lies() -> None:
    spec = InputSpec(size=(64, 64), resize="letterbox")
    wide = np.zeros((50, 100, 3), np.uint8)
    wide[:, :50] = 255
    fitted = fit(wide, spec)
    assert fitted.pixels.shape == (64, 64, 3)
    assert fitted.box == (0.25, 0.0, 0.5, 1.0)
    assert (fitted.pixels[:, :30] == 255).all()
    assert (fitted.pixels[:, 34:] == 0).all()
    assert fit(wide, InputSpec(size=(32, 40), resize="stretch")).pixels.shape == (32, 40, 3)
