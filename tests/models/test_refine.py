"""From scores on a grid to a refined label map at the photo's size, each way."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from models import assign, deadline
from models.crf import reference
from models.preprocess import Fit, InputSpec, fit
from models.refine import refine


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


WAYS: list[dict[str, Any]] = [
    {},
    {"method": "fast"},
    {"resolution": "source"},
    {"method": "fast", "resolution": "source"},
    {"method": "pydensecrf"},
    {"method": "pydensecrf", "resolution": "source"},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_finds_the_disk(way: dict[str, Any]) -> None:
    if way.get("method") == "pydensecrf" and (reason := reference.missing()):
        pytest.skip(reason)
    truth, photo, scores, fitted = scene()
    plain = assign.labels(scores, fitted.source, fitted.box)
    labels = refine(scores, None, fitted, temperature=4, assignment="dot", photo=photo, **way)
    assert labels.shape == truth.shape
    assert labels.dtype == np.uint8
    assert (labels == truth).mean() > max((plain == truth).mean(), 0.97)


@pytest.mark.skipif(reference.missing() is not None, reason=reference.missing() or "")
@pytest.mark.parametrize("at", ["input", "source"])
def test_pydensecrf_answers_as_ours_does(at: Any) -> None:
    _, photo, scores, fitted = scene()
    given: dict[str, Any] = {"temperature": 4, "assignment": "dot", "photo": photo, "resolution": at, "iterations": 3}
    weak = {"gaussian_compat": 0, "bilateral_compat": 0.5}
    ours = refine(scores, None, fitted, **given, **weak)
    assert (refine(scores, None, fitted, method="pydensecrf", **given, **weak) == ours).mean() > 0.999
    assert (refine(scores, None, fitted, method="pydensecrf", **given) != ours).any(), "the parameters arrive"


def test_cosines_are_those_of_the_service() -> None:
    _, _, scores, fitted = scene()
    code = np.concatenate([scores, np.ones_like(scores[:1])])
    once = refine(scores, code, fitted, temperature=2)
    longer = refine(2 * scores, 2 * code, fitted, temperature=2)
    np.testing.assert_array_equal(once, longer)


def test_the_source_needs_its_pixels() -> None:
    _, photo, scores, fitted = scene()
    for wrong in (None, photo[:-1]):
        with pytest.raises(ValueError, match="pixels"):
            refine(scores, None, fitted, temperature=2, assignment="dot", resolution="source", photo=wrong)


@pytest.mark.parametrize("at", ["input", "source"])
def test_too_late_is_told(at: Any) -> None:
    _, photo, scores, fitted = scene()
    late = time.monotonic() - 1
    with pytest.raises(deadline.CRFTimeout):
        refine(scores, None, fitted, temperature=2, assignment="dot", resolution=at, photo=photo, deadline=late)
