"""Transparency: shown on white, as Pillow composites it; wholly transparent is no data."""

import numpy as np
from PIL import Image

from models.io.alpha import paint

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (61, 47, 3), dtype=np.uint8)
OPACITY = RNG.choice([0, 1, 128, 254, 255], (61, 47)).astype(np.uint8)


def test_what_is_seen_through_is_shown_on_white() -> None:
    rgba = Image.fromarray(np.dstack([RGB, OPACITY]))
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    want = np.asarray(Image.alpha_composite(white, rgba))[..., :3].astype(int)
    got, valid = paint(RGB.copy(), OPACITY)
    assert np.abs(got - want).max() <= 1
    assert (valid == (OPACITY > 0)).all()
    assert (got[OPACITY == 0] == 255).all()
    assert (got[OPACITY == 255] == RGB[OPACITY == 255]).all()


def test_premultiplied_colors_are_not_multiplied_again() -> None:
    straight, _ = paint(RGB.copy(), OPACITY)
    associated = np.rint(RGB * (OPACITY[..., None] / 255)).astype(np.uint8)
    got, valid = paint(associated, OPACITY, premultiplied=True)
    assert np.abs(got.astype(int) - straight).max() <= 1
    assert (valid == (OPACITY > 0)).all()


def test_opaque_pictures_cost_nothing() -> None:
    got, valid = paint(RGB, np.full((61, 47), 255, np.uint8))
    assert got is RGB
    assert valid is None
    assert paint(RGB, np.full((61, 47), 7, np.uint8))[1] is None  # nothing is wholly transparent


def test_painted_in_place_where_it_may_be() -> None:
    mine = RGB.copy()
    assert paint(mine, OPACITY)[0] is mine
    mine = RGB.copy()
    mine.flags.writeable = False
    painted = paint(mine, OPACITY)[0]
    assert (mine == RGB).all()
    assert (painted != RGB).any()


def test_strips_change_nothing() -> None:
    tall = np.tile(RGB, (200, 3, 1))
    got, _ = paint(tall.copy(), np.tile(OPACITY, (200, 3)))
    assert (got == np.tile(paint(RGB.copy(), OPACITY)[0], (200, 3, 1))).all()
