"""The Gaussian term's weights, against filtering on the lattice they are read off."""

import numpy as np
import pytest

from models.crf.cpu import lattice, stencil
from models.crf.cpu.simd import UNITS
from models.parallel import ThreadTeam


@pytest.mark.parametrize("sxy", [0.3, 0.7, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("size", [(60, 17), (9, 30)])
def test_the_stencil_is_the_lattice(sxy: float, size: tuple[int, int]) -> None:
    """A few rows of weights, repeated down the image, against filtering that image on its own lattice."""
    height, width = size
    ys, xs = np.divmod(np.arange(height * width), width)
    grid = lattice.build(np.stack([xs, ys], axis=1).astype(np.float32) / np.float32(sxy), ThreadTeam(1))
    rows, held = lattice.aligned(ys.size * 8), lattice.aligned((grid.vertices + 1) * 8)
    channels = rows.reshape(-1, 8)
    channels[:] = np.random.default_rng(0).random(channels.shape)
    channels[:, 7] = 1

    def filtered() -> np.ndarray:
        lattice.splat(rows, 0, grid, held, 8, 8, UNITS[0], 0, 0, grid.vertices)
        lattice.blur(grid, held, 8, UNITS[0], 0, 8)
        return np.einsum("nr,nrc->nc", grid.weight, held.reshape(-1, 8)[grid.vertex])

    norm = 1 / np.sqrt(filtered()[:, 7:])
    signal = channels.copy()
    channels *= norm
    expected = filtered() * norm

    found = stencil.gaussian_stencil(height, width, sxy)
    padded = np.pad(signal.reshape(height, width, 8), [(found.radius,) * 2] * 2 + [(0, 0)])
    ours = np.zeros((height, width, 8))
    for tap, (dy, dx) in enumerate(found.steps + found.radius):
        ours += found.weights[found.row, :, tap, None] * padded[dy : dy + height, dx : dx + width]
    np.testing.assert_allclose(ours.reshape(-1, 8), expected, rtol=1e-5, atol=1e-5)
    if sxy == 1 and height == 60:
        assert len(found.weights) == 17, "rows repeat: one in the middle, a few at each border"


def test_taps_are_the_stencil_without_its_zeros() -> None:
    found = stencil.gaussian_stencil(20, 12, 1.0)
    taps = stencil.taps(found)
    assert not (np.diff(taps.first) % 4).any(), "readers take four at a time"
    assert taps.weights.size < found.weights.size
    for y in range(20):
        for x in range(12):
            at = taps.row[y] * 12 + x
            mine = slice(taps.first[at], taps.first[at + 1])
            ours: dict[int, float] = {}
            for step, weight in zip(taps.steps[mine], taps.weights[mine], strict=True):
                ours[int(step)] = ours.get(int(step), 0.0) + float(weight)
            for (dy, dx), weight in zip(found.steps, found.weights[found.row[y], x], strict=True):
                if weight > stencil.NEGLIGIBLE:
                    assert ours[int(dy * 12 + dx)] == pytest.approx(weight)


@pytest.mark.parametrize(
    ("height", "sxy", "period", "fours"),
    [(60, 1.0, 1, 11), (16, 1.0, 0, 0), (80, 2.0, 2, 6), (90, 1.5, 3, 5), (60, 1.3, 0, 0)],
)
def test_bands_are_rows_whose_weights_repeat(height: int, sxy: float, period: int, fours: int) -> None:
    taps = stencil.taps(stencil.gaussian_stencil(height, 12, sxy))
    bands = np.split(taps.row, taps.bands[1:-1])
    assert sum(len(band) for band in bands) == height
    tall = [band for band in bands if len(band) > 1]
    assert len(tall) == fours
    assert {len(band) for band in tall} <= {stencil.BAND * period}
    assert taps.tallest == max(1, stencil.BAND * period)
    for band in tall:
        np.testing.assert_array_equal(band, np.tile(band[:period], stencil.BAND))
