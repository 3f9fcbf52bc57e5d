"""From scores to labels at the photo's size, on the device, against models.refine."""

import numpy as np
import pytest

from models import assign, refine
from models.crf.cuda import Device, Refiner
from models.crf.params import CRFParams
from models.manifest import CodeSpec
from models.preprocess import Fit
from tests.models.crf.cuda.cases import Array, maps, picture

DOT = CodeSpec(dim=1, stride=8, assignment="dot", temperature=2.0)
COSINE = DOT.model_copy(update={"assignment": "cosine"})


def on_host(device: Device, arrays: list) -> list[Array]:  # type: ignore[type-arg]
    return [device.download(array) for array in arrays]


def code(dim: int, height: int, width: int, seed: int = 0) -> Array:
    """float32 [D, h, w], of any length."""
    return np.random.default_rng(seed).standard_normal((dim, height, width)).astype(np.float32)


def test_the_lower_id_wins_a_tie(device: Device) -> None:
    scores = np.repeat(code(3, 4, 4), 2, axis=0)  # 0 and 1 are equal, as are 2 and 3, 4 and 5
    (labels,) = on_host(device, Refiner(device).refine([scores], None, [Fit(picture(32, 32), (20, 24))], DOT))
    assert set(np.unique(labels)) == {0, 2, 4}


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
    spec = CodeSpec(dim=6, stride=8, assignment=assignment, temperature=2.0, interpolation=interpolation)
    params = CRFParams(bilateral_srgb=5.0)
    ours = on_host(device, Refiner(device).refine(scores, codes, fitted, spec, params))
    for got, given, its, fit in zip(ours, scores, codes, fitted, strict=True):
        assert got.shape == fit.source
        assert (got == refine.refine(given, its, fit, spec, params=params)).mean() >= 0.999


def test_probabilities_do_not_leave_the_range_of_the_papers(device: Device) -> None:
    """A temperature that makes one cluster certain: the others are clipped to 1e-5, as for the CPU."""
    scores, fit = maps(4, 32, 32, 3, 50.0)[:, ::8, ::8].copy(), Fit(picture(32, 32), (32, 32))
    spec, params = DOT.model_copy(update={"temperature": 10.0}), CRFParams(gaussian_compat=5.0)
    (got,) = on_host(device, Refiner(device).refine([scores], None, [fit], spec, params))
    assert (got == refine.refine(scores, None, fit, spec, params=params)).mean() >= 0.999


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
        Refiner(device).refine(scores, codes, [Fit(picture(32, 32), (32, 32))], COSINE)


def test_one_number_of_labels_a_batch(device: Device) -> None:
    with pytest.raises(ValueError, match="of one K"):
        Refiner(device).refine([maps(k, 4, 4) for k in (2, 3)], None, [Fit(picture(32, 32), (32, 32))] * 2, DOT)
