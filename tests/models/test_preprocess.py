"""The way to the network's size and back."""

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from models import preprocess
from models.preprocess import InputSpec, Normalization, fit, fitted_size, resize


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


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("size", ((1, 1), (1, 8192)), ((0, 8), (8, -1), (8, 8193))),
        ("multiple", (1, 1024), (0, 1025)),
        ("max_side_px", (8, 8192), (0, 7, 8193)),  # 7: less than `multiple`
        ("bands", ((1,), (65535, 1, 1)), ((0,), (65536,), (1, 2))),
    ],
)
def test_every_number_of_the_input_has_a_bound(name: str, taken: Any, refused: Any) -> None:
    for value in taken:
        InputSpec(**{"size": (8, 8), name: value})
    for value in refused:
        with pytest.raises(ValidationError):
            InputSpec(**{"size": (8, 8), name: value})


def test_the_largest_image_that_can_come_of_it_has_a_bound() -> None:
    panorama = InputSpec(size=(240, 320), multiple=16, max_side_px=960)
    assert panorama.largest == (240, 960)
    for source in ((9, 5000), (5000, 9), (1, 1), (480, 640)):
        height, width = fitted_size(source, panorama)
        assert height * width <= 240 * 960
    assert InputSpec(size=(64, 100), resize="stretch", max_side_px=8).largest == (64, 100)
    InputSpec(size=(4096, 4096), max_side_px=8192)
    for beyond in ({"size": (4104, 4104), "max_side_px": 8192}, {"size": (8192, 4097), "resize": "letterbox"}):
        with pytest.raises(ValidationError, match=r"Mpx; the limit is 33\.6"):
            InputSpec(**beyond)


def test_normalization_has_bounds() -> None:
    one = (1.0, 1.0, 1.0)
    Normalization(mean=(0, -1000, 1000), std=(1e-6, 1000, 1))
    for given in ({"mean": (0, 0, 1001)}, {"mean": (math.nan, 0, 0)}, {"std": (0, 1, 1)}, {"std": (math.inf, 1, 1)}):
        with pytest.raises(ValidationError):
            Normalization(**{"mean": one, "std": one, **given})
