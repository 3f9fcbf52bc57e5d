"""From scores on a grid to a refined label map at the photo's size, each way."""

import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from models import assign
from models.crf import dense, reference
from models.crf.params import CRFParams
from models.deadline import DeadlineExceeded
from models.manifest import CodeSpec
from models.preprocess import Fit, InputSpec, fit
from models.refine import refine
from tests.models.crf import recorded


def scene(height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray, Fit]:
    """A disk on a ground: truth, photo, scores [2, 6, 8] of a coarse network, and the fitted photo."""
    y, x = np.mgrid[:height, :width]
    truth = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(-2, 3, (height, width, 3))
    photo = (np.array([[200, 60, 40], [40, 90, 180]])[truth] + noise).astype(np.uint8)
    fitted = fit(photo, InputSpec(size=(48, 64), multiple=8, resize="short_side", max_side_px=256))
    rows, columns = np.linspace(0, height - 1, 6).astype(int), np.linspace(0, width - 1, 8).astype(int)
    disk = truth[rows[:, None], columns].astype(np.float32)
    return truth, photo, np.stack([1 - disk, disk]) * 0.5, fitted


DOT = CodeSpec(dim=1, stride=8, assignment="dot", temperature=4)
WAYS: list[dict[str, Any]] = [
    {},
    {"method": "fast"},
    {"resolution": "source"},
    {"method": "fast", "resolution": "source"},
]


def assert_found(labels: np.ndarray, truth: np.ndarray, scores: np.ndarray, fitted: Fit) -> None:
    plain = assign.labels(scores, fitted.source, fitted.box)
    assert labels.shape == truth.shape
    assert labels.dtype == np.uint8
    assert (labels == truth).mean() > max((plain == truth).mean(), 0.97)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_finds_the_disk(way: dict[str, Any]) -> None:
    truth, photo, scores, fitted = scene()
    assert_found(refine(scores, None, fitted, DOT, photo=photo, **way), truth, scores, fitted)


@pytest.mark.parametrize("at", ["input", "source"])
def test_pydensecrf_answers_as_ours_does(at: Any) -> None:
    truth, photo, scores, fitted = scene()

    def by(method: Any, params: CRFParams) -> np.ndarray:
        return refine(scores, None, fitted, DOT, method=method, photo=photo, resolution=at, params=params)

    usual, weak = CRFParams(iterations=3), CRFParams(iterations=3, gaussian_compat=0, bilateral_compat=0.5)
    theirs = recorded.labels(f"disk-at-{at}", lambda: by("pydensecrf", usual))
    weakly = recorded.labels(f"disk-at-{at}-weak", lambda: by("pydensecrf", weak))
    assert_found(theirs, truth, scores, fitted)
    assert (by("dense", usual) == theirs).mean() > 0.999
    assert (by("dense", weak) == weakly).mean() > 0.999
    assert (theirs != weakly).any(), "the parameters arrive"


@pytest.mark.parametrize("at", ["input", "source"])
def test_pydensecrf_is_asked_what_ours_is(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "refine", partial(dense.refine, return_marginals=True))
    _, photo, scores, fitted = scene()
    given: dict[str, Any] = {"photo": photo, "resolution": at, "params": CRFParams(iterations=3, bilateral_srgb=9)}
    theirs = refine(scores, None, fitted, DOT, method="pydensecrf", **given)
    np.testing.assert_array_equal(theirs, refine(scores, None, fitted, DOT, **given))


def test_cosines_are_those_of_the_service() -> None:
    _, _, scores, fitted = scene()
    code = np.concatenate([scores, np.ones_like(scores[:1])])
    spec = CodeSpec(dim=3, stride=8, assignment="cosine", temperature=2)
    once = refine(scores, code, fitted, spec)
    longer = refine(2 * scores, 2 * code, fitted, spec)
    np.testing.assert_array_equal(once, longer)


def test_the_source_needs_its_pixels() -> None:
    _, photo, scores, fitted = scene()
    for wrong in (None, photo[:-1]):
        with pytest.raises(ValueError, match="pixels"):
            refine(scores, None, fitted, DOT, resolution="source", photo=wrong)


@pytest.mark.parametrize("at", ["input", "source"])
def test_too_late_is_told(at: Any) -> None:
    _, photo, scores, fitted = scene()
    late = time.monotonic() - 1
    with pytest.raises(DeadlineExceeded):
        refine(scores, None, fitted, DOT, resolution=at, photo=photo, deadline=late)
