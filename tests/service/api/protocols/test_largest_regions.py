"""The largest regions, and a word on the others."""

import numpy as np
import pytest

from models import polygons
from service.api.protocols.largest_regions import largest_regions


def test_all_of_them_where_they_are_few() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:5, 2:5], labels[10:18, 10:18] = 1, 2
    found = largest_regions(labels, None, min_area=0, most=3)
    assert [(one.id, one.pixels) for one in found.regions] == [(0, 327), (2, 64), (1, 9)]
    assert found.told == ""


def test_what_is_left_out_is_told() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:5, 2:5], labels[10:18, 10:18] = 1, 2
    found = largest_regions(labels, None, min_area=10, most=3)
    assert [one.id for one in found.regions] == [0, 2]
    assert found.told == "regions of fewer than 10 pixels are left out"
    found = largest_regions(labels, None, min_area=0, most=2)
    assert [one.id for one in found.regions] == [0, 2]
    assert found.told == "the 2 largest regions are shown, with 64 pixels or more"


def test_noise_is_left_out_where_it_would_be_too_much_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (200, 200), np.uint8)
    labels[:, 100:] = 7
    monkeypatch.setattr("service.api.protocols.largest_regions.regions", few_corners)
    found = largest_regions(labels, None, min_area=0, most=500)
    assert found.regions[0].id == 7
    assert found.told.startswith("regions of fewer than ")


def few_corners(labels: np.ndarray, margin: None, *, min_area: int, ignored: int) -> polygons.Regions:
    return polygons.regions(labels, margin, min_area=min_area, ignored=ignored, most=2000)
