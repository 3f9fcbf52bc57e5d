"""Labels and probabilities from scores, on the device, against models.assign and models.refine."""

from __future__ import annotations

import numpy as np
import pytest

from models import assign, refine
from models.crf.cuda import Device, Refiner
from models.preprocess import Fit
from models.types import Box
from tests.models.crf.cuda.cases import Array, maps, picture


def on_host(device: Device, arrays: list) -> list[Array]:  # type: ignore[type-arg]
    return [device.download(array) for array in arrays]


def code(dim: int, height: int, width: int, seed: int = 0) -> Array:
    """float32 [D, h, w], of any length."""
    return np.random.default_rng(seed).standard_normal((dim, height, width)).astype(np.float32)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_labels_are_those_of_assign_to_the_last_pixel(device: Device, interpolation: assign.Interpolation) -> None:
    grids = [(5, 7), (1, 1), (12, 9), (6, 6)]
    sizes = [(41, 56), (3, 4), (5, 4), (48, 48)]
    boxes: list[Box] = [assign.WHOLE, assign.WHOLE, (0.0, 0.1, 1.0, 0.7), (0.125, 0.0, 0.75, 1.0)]
    scores = [code(27, *grid, seed) for seed, grid in enumerate(grids)]
    ours = on_host(device, Refiner(device).label_batch(scores, sizes, boxes, interpolation=interpolation))
    for got, given, size, box in zip(ours, scores, sizes, boxes, strict=True):
        np.testing.assert_array_equal(got, assign.labels(given, size, box, interpolation=interpolation))


def test_the_lower_id_wins_a_tie_and_a_table_merges(device: Device) -> None:
    scores = np.repeat(code(3, 4, 4), 2, axis=0)  # 0 and 1 are equal, as are 2 and 3, 4 and 5
    refiner = Refiner(device)
    (plain,) = on_host(device, refiner.label_batch([scores], [(20, 24)]))
    assert set(np.unique(plain)) == {0, 2, 4}
    table = np.array([5, 5, 4, 4, 3, 3], np.uint8)
    (merged,) = on_host(device, refiner.label_batch([scores], [(20, 24)], table=table))
    np.testing.assert_array_equal(merged, table[plain])


@pytest.mark.parametrize(
    ("assignment", "interpolation"), [("cosine", "bilinear"), ("dot", "bilinear"), ("cosine", "nearest")]
)
def test_refined_photos_are_those_of_the_cpu(
    device: Device, assignment: assign.Assignment, interpolation: assign.Interpolation
) -> None:
    """Letterboxed and whole, larger and smaller than the network's size, from scores to labels at the photo's size."""
    fitted = [
        Fit(picture(32, 48), (45, 50), (0.0, 0.125, 1.0, 0.75)),
        Fit(picture(24, 32, 1), (24, 32)),
        Fit(picture(32, 24, 2), (20, 15)),
    ]
    codes = [code(6, fit.pixels.shape[0] // 8, fit.pixels.shape[1] // 8, n) for n, fit in enumerate(fitted)]
    centroids = np.random.default_rng(9).standard_normal((5, 6)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    scores = [np.tensordot(centroids, each, 1).astype(np.float32) for each in codes]
    options = {
        "temperature": 2.0,
        "assignment": assignment,
        "interpolation": interpolation,
        "bilateral_srgb": 5.0,
    }
    refiner = Refiner(device)
    ours = on_host(device, refiner.refined_batch(scores, codes, fitted, **options))  # type: ignore[arg-type]
    for got, given, its, fit in zip(ours, scores, codes, fitted, strict=True):
        assert got.shape == fit.source
        expected = refine.refine(given, its, fit, **options)  # type: ignore[arg-type]
        assert (got == expected).mean() >= 0.999

    with device.active():
        pixels = [device.upload(fit.pixels) for fit in fitted]
    table = np.array([0, 0, 2, 2, 4], np.uint8)
    again = refiner.refined_batch(scores, codes, fitted, pixels=pixels, table=table, **options)  # type: ignore[arg-type]
    for got, before in zip(on_host(device, again), ours, strict=True):
        assert (got == table[before]).mean() >= 0.995  # merged after the winner is known
        assert set(np.unique(got)) <= {0, 2, 4}


def test_probabilities_do_not_leave_the_range_of_the_papers(device: Device) -> None:
    """A temperature that makes one cluster certain: the others are clipped to 1e-5, as for the CPU."""
    scores, fit = maps(4, 32, 32, 3, 50.0)[:, ::8, ::8].copy(), Fit(picture(32, 32), (32, 32))
    options = {"temperature": 10.0, "assignment": "dot", "gaussian_compat": 5.0}
    (got,) = on_host(device, Refiner(device).refined_batch([scores], None, [fit], **options))  # type: ignore[arg-type]
    expected = refine.refine(scores, None, fit, **options)  # type: ignore[arg-type]
    assert (got == expected).mean() >= 0.999


@pytest.mark.parametrize(
    ("scores", "codes", "message"),
    [
        ([np.zeros((3, 4, 4), np.float64)], [np.zeros((5, 4, 4), np.float32)], "float64"),
        ([np.zeros((3, 4, 4), np.float32)], [np.zeros((5, 2, 4), np.float32)], "scores' grid"),
        ([np.zeros((3, 4, 4), np.float32)], None, "codes as well"),
        ([np.zeros((300, 4, 4), np.float32)], [np.zeros((5, 4, 4), np.float32)], "256"),
        ([], [], "0 scores for 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    device: Device, scores: list[Array], codes: list[Array] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Refiner(device).refined_batch(scores, codes, [Fit(picture(32, 32), (32, 32))], temperature=2.0)
