"""pydensecrf behind our door: the published answer; and ours beside it, or beside what is recorded of it."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.crf import dense, reference
from models.crf.params import CRFError, CRFParams
from models.deadline import DeadlineExceeded
from tests.models.crf import recorded
from tests.models.crf.drawn import published, scene, unary

PHOTOS = Path(__file__).parents[4] / "shared" / "data" / "photos"
installed = pytest.mark.skipif(reference.missing() is not None, reason=reference.missing() or "")


@installed
def test_step_by_step_is_what_the_package_does_at_once() -> None:
    from pydensecrf.densecrf import DenseCRF2D

    image, probabilities = scene()[0], unary("flat", 12, 48, 64)
    for iterations in (0, 1, 10):
        model = DenseCRF2D(64, 48, 12)
        model.setUnaryEnergy(-np.log(np.clip(probabilities, 1e-5, 1)).reshape(12, -1))
        model.addPairwiseGaussian(sxy=1, compat=3)
        model.addPairwiseBilateral(sxy=67, srgb=3, rgbim=np.ascontiguousarray(image[:, :, ::-1]), compat=4)
        expected = np.array(model.inference(iterations)).reshape(12, 48, 64)
        labels, marginals = reference.refine(probabilities, image, CRFParams(iterations=iterations))
        np.testing.assert_array_equal(marginals, expected)
        np.testing.assert_array_equal(labels, expected.argmax(axis=0))


@installed
def test_it_is_the_published_pipeline() -> None:
    image, probabilities, expected = published()
    assert np.abs(reference.refine(probabilities, image).marginals - expected).max() < 1e-4


@installed
def test_a_deadline_ends_the_work_soon() -> None:
    probabilities, image = unary("flat", 27, 120, 160), scene(120, 160)[0]
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="iterations"):
        reference.refine(probabilities, image, CRFParams(iterations=1000), deadline=began + 0.2)
    assert time.monotonic() - began < 2
    with pytest.raises(DeadlineExceeded):
        reference.refine(probabilities, image, deadline=began)


@installed
def test_tiny_images_and_views() -> None:
    for shape in ((1, 1), (1, 9), (7, 1)):
        wide = np.repeat(unary("flat", 3, *shape), 2, axis=2)[:, :, ::2]
        labels, marginals = reference.refine(wide, np.zeros((*shape, 3), np.uint8))
        assert labels.shape == shape
        np.testing.assert_allclose(marginals.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"probabilities": np.ones((2, 4, 5))}, "float64"),
        ({"image": np.zeros((5, 4, 3), np.uint8)}, "4×5"),
        ({"params": CRFParams(bilateral_srgb=0.1)}, "larger"),  # more steps than its lattice can count
    ],
)
def test_refusals_are_those_of_ours(broken: dict[str, Any], message: str) -> None:
    given = {"probabilities": np.full((2, 4, 5), 0.5, np.float32), "image": np.full((4, 5, 3), 255, np.uint8)}
    with pytest.raises(CRFError, match=message):
        reference.refine(**(given | broken))


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(reference.NotInstalled, match=f"{sys.executable} -m pip install .* pydensecrf$"):
        reference.refine(np.full((2, 4, 5), 0.5, np.float32), np.zeros((4, 5, 3), np.uint8))


NOISE = "noise"
CASES: dict[str, tuple[str, int, tuple[int, int], dict[str, Any]]] = {
    "published-parameters": ("flat", 12, (80, 96), {}),
    "one-iteration": ("flat", 12, (80, 96), {"iterations": 1}),
    "smoother": ("flat", 12, (80, 96), {"gaussian_sxy": 2, "gaussian_compat": 5}),
    "stronger-edges": ("flat", 12, (80, 96), {"bilateral_sxy": 20, "bilateral_srgb": 13, "bilateral_compat": 10}),
    "two-labels": ("smooth", 2, (41, 33), {"iterations": 5}),
    "27-labels": ("peaked", 27, (64, 48), {}),
    "40-labels": ("smooth", 40, (24, 56), {"gaussian_sxy": 3, "bilateral_sxy": 30}),
    NOISE: ("smooth", 5, (64, 64), {}),  # six lattice vertices a pixel: the most there can be
}


@pytest.mark.parametrize("name", CASES)
def test_ours_agrees(name: str) -> None:
    kind, k, size, changed = CASES[name]
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = noise if name == NOISE else scene(*size)[0]
    probabilities, params = unary(kind, k, *size), CRFParams(**changed)
    theirs = recorded.answer(name, lambda: reference.refine(probabilities, image, params))
    ours = dense.refine(probabilities, image, params, return_marginals=True)
    assert (ours.labels == theirs.labels).mean() >= 0.999
    assert np.abs(theirs.marginals_of(ours) - theirs.marginals).mean() < 1e-6


@installed
@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.exists(), reason="the photos are not here")
@pytest.mark.parametrize("kind", ["smooth", "peaked", "flat"])
def test_ours_agrees_on_photos(kind: str) -> None:
    paths = sorted(PHOTOS.rglob("*.jpg"))
    same = []
    for seed, path in enumerate(paths[:: len(paths) // 6][:6]):
        image = np.array(Image.open(path).convert("RGB").resize((320, 320), Image.Resampling.BILINEAR))
        probabilities = unary(kind, 27, 320, 320, seed)
        expected = reference.refine(probabilities, image).labels
        assert (expected != probabilities.argmax(axis=0)).mean() > 0.01, "a unary that the CRF has work with"
        same.append((dense.refine(probabilities, image).labels == expected).mean())
    assert min(same) >= 0.9999
