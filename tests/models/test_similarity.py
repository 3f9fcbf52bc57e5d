"""Cosines with one place, against upsampling the whole code."""

import numpy as np
import pytest

from models.assign import upsampled
from models.similarity import LIKE, alike, code_of, likeness, similarity


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.125, 0.0, 0.75, 1.0)])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_it_is_the_cosine_of_the_upsampled_codes(box: tuple[float, float, float, float], interpolation: str) -> None:
    rng = np.random.default_rng(3)
    code = rng.normal(size=(6, 5, 7)).astype(np.float32)
    size, at = (37, 41), (20, 9)
    got = similarity(code, at, size, box, interpolation)  # type: ignore[arg-type]
    whole = np.concatenate([s for _, s in upsampled(code, size, box, interpolation)], axis=1)  # type: ignore[arg-type]
    units = whole / np.linalg.norm(whole, axis=0)
    expected = np.einsum("d,dhw->hw", units[:, at[0], at[1]], units)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert got[at] == pytest.approx(1, abs=1e-5)


def test_a_pixel_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="outside of 20×10"):
        similarity(np.ones((2, 3, 3), np.float32), (10, 0), (10, 20))


def test_what_is_alike_is_near_one_that_is_meant_and_nearer_than_to_the_others() -> None:
    meant = [np.array([[0.9, LIKE, 0.2, 0.6]], np.float32), np.array([[0.1, 0.1, 0.7, 0.6]], np.float32)]
    assert alike(meant).tolist() == [[True, True, True, True]]
    assert alike(meant[:1]).tolist() == [[True, True, False, True]]
    assert alike(meant, [np.array([[0.95, 0.4, 0.6, 0.6]], np.float32)]).tolist() == [[False, True, True, False]]
    assert alike(meant, threshold=0.65).tolist() == [[True, False, True, False]]


def test_a_place_of_one_image_is_looked_for_in_another() -> None:
    rng = np.random.default_rng(4)
    here, there = rng.normal(size=(2, 6, 5, 7)).astype(np.float32)
    place = code_of(here, (20, 9), (37, 41))
    got = likeness(place, there, (30, 20))
    one, other = (
        np.concatenate([s for _, s in upsampled(c, z)], axis=1) for c, z in ((here, (37, 41)), (there, (30, 20)))
    )
    one, other = (whole / np.linalg.norm(whole, axis=0) for whole in (one, other))
    np.testing.assert_allclose(got, np.einsum("d,dhw->hw", one[:, 20, 9], other), atol=2e-5)
