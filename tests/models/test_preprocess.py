"""The way to the network's size and back."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from models import preprocess
from models.preprocess import InputSpec, fit, fitted_size, resize


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


@pytest.mark.parametrize("resize", ["short_side", "letterbox", "stretch"])
def test_a_smaller_level_is_fitted_as_the_picture_it_stands_for(resize: Any) -> None:
    spec = InputSpec(size=(32, 32), resize=resize, multiple=8)
    level = np.random.default_rng(0).integers(0, 256, (51, 34, 3), dtype=np.uint8)
    fitted = fit(level, spec, (203, 137))
    assert fitted.source == (203, 137)
    whole = fit(np.zeros((203, 137, 3), np.uint8), spec)
    assert (fitted.pixels.shape, fitted.box) == (whole.pixels.shape, whole.box)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((300, 200, 3), (42, 32)),
        ((301, 203), (32, 33)),
        ((3, 30000, 3), (32, 48)),
        ((30000, 3, 3), (48, 2)),
        ((400, 230, 3), (30, 17)),
        ((1200, 1600), (40, 53)),
        ((200, 300, 3), (200, 50)),
        ((200, 300, 3), (250, 100)),
        ((200, 300, 3), (50, 300)),
        ((200, 300, 3), (50, 400)),
    ],
)
def test_strips_make_the_pixels_that_pillow_makes_of_the_whole(
    shape: tuple[int, ...], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    whole = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    monkeypatch.setattr(preprocess, "_STRIP_PX", 1000)
    assert (resize(image, size) == whole).all()


def test_bands_are_written_only_where_there_are_some() -> None:
    assert "bands" not in InputSpec(size=(8, 8)).model_dump_json()
    of_infrared = InputSpec(size=(8, 8), bands=(4, 3, 2))
    assert InputSpec.model_validate_json(of_infrared.model_dump_json()) == of_infrared
    for wrong in ([], [1, 2], [0], [1, 2, 3, 4]):
        with pytest.raises(ValidationError):
            InputSpec.model_validate({"size": (8, 8), "bands": wrong})
