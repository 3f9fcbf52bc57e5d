"""Photos and probabilities drawn for the CRF's tests, and how near an answer must be to the CPU's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import crf

Array = NDArray[Any]


def picture(height: int, width: int, seed: int = 0) -> Array:
    """uint8 [H, W, 3]: a disk on a ground, a slope of brightness, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    disk = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2
    color = np.array([[200, 60, 40], [40, 90, 180]])[disk.astype(int)] + (x * 30 // width)[:, :, None]
    return (color + rng.integers(-2, 3, (height, width, 3))).astype(np.uint8)


def noise(height: int, width: int, seed: int = 0) -> Array:
    """Six lattice vertices for nearly every pixel: the most there can be."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def maps(k: int, height: int, width: int, seed: int = 0, spread: float = 1.0) -> Array:
    """Scores float32 [K, h, w], smooth over about eight pixels."""
    rng = np.random.default_rng(seed)
    grid = rng.standard_normal((k, height // 8 + 2, width // 8 + 2)) * spread
    for axis, size in ((1, height), (2, width)):
        at = np.linspace(0, grid.shape[axis] - 1.001, size)
        low, weight = at.astype(int), at - at.astype(int)
        weight = weight[:, None] if axis == 1 else weight
        grid = grid.take(low, axis) * (1 - weight) + grid.take(low + 1, axis) * weight
    return grid.astype(np.float32)


def probabilities(k: int, height: int, width: int, seed: int = 0, spread: float = 1.0) -> Array:
    """float32 [K, H, W], a softmax over maps()."""
    grown = np.exp(maps(k, height, width, seed, spread))
    return np.asarray(grown / grown.sum(axis=0), np.float32)


def assert_near(labels: Sequence[Array], marginals: Sequence[Array], cases: Sequence[tuple[Array, Array]]) -> None:
    """Marginals within 5e-6 of the CPU's in the mean; and other labels at most where two are as good as equal."""
    for ours, q, (given, image) in zip(labels, marginals, cases, strict=True):
        expected, exact = crf.refine(given, image, return_marginals=True)
        assert np.abs(q - exact).mean() < 5e-6
        other = ours != expected
        assert other.mean() < 1e-3
        y, x = np.nonzero(other)
        assert (exact[expected[other], y, x] - exact[ours[other], y, x] < 1e-4).all()
