"""Cosines with one place, against upsampling the whole code."""

import numpy as np
import pytest

from models.assign import upsampled
from models.similarity import similarity


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
