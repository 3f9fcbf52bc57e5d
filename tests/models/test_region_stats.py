"""What is measured about a label map, against the slow and plain way; compiled and in numpy."""

import numpy as np
import pytest

from models import region_stats
from models.native import bindings


@pytest.fixture(params=["compiled", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(bindings, "_library", lambda: None)
    elif not bindings.compiled():
        pytest.skip("no compiled kernels here")
    return str(request.param)


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (300, 7), (5, 2000)])
@pytest.mark.parametrize("strip", [16, 2**20])
@pytest.mark.parametrize("cells", [None, (1, 1), (3, 5), (64, 64)])
def test_measure(
    shape: tuple[int, int], strip: int, cells: tuple[int, int] | None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_stats, "_COUNTED_PX", strip)
    rng = np.random.default_rng(sum(shape))
    labels = (rng.integers(0, 9, shape) * (rng.random(shape) < 0.3)).astype(np.uint8)
    margin = rng.random(cells or shape, np.float32)
    rows_of = np.arange(shape[0]) * margin.shape[0] // shape[0]
    columns_of = np.arange(shape[1]) * margin.shape[1] // shape[1]
    everywhere = margin[rows_of][:, columns_of]
    found = region_stats.compute(labels, 9, margin)
    assert [a.pixels for a in found] == sorted((a.pixels for a in found), reverse=True)
    assert {a.id for a in found} == set(labels.ravel().tolist())
    for area in found:
        rows, columns = np.nonzero(labels == area.id)
        x, y, width, height = area.bbox
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert area.pixels == len(rows)
        assert area.confidence == pytest.approx(everywhere[labels == area.id].astype(float).mean(), rel=1e-9)


def test_a_small_margin_map_stands_for_the_whole_image(way: str) -> None:
    labels = np.repeat(np.repeat(np.array([[0, 1], [1, 0]], np.uint8), 10, 0), 10, 1)
    margin = np.array([[0.2, 0.6], [0.4, 0.8]], np.float32)
    assert {a.id: round(a.confidence, 3) for a in region_stats.compute(labels, 2, margin)} == {0: 0.5, 1: 0.5}


def test_the_smaller_id_is_first_among_equals_and_no_margin_is_none(way: str) -> None:
    labels = np.array([[5, 5, 2, 2]], np.uint8)
    assert [(a.id, a.confidence) for a in region_stats.compute(labels, 6)] == [(2, 0.0), (5, 0.0)]


def test_an_id_that_cannot_be_is_refused(way: str) -> None:
    with pytest.raises(ValueError, match="id 255"):
        region_stats.compute(np.array([[0, 255]], np.uint8), 11)


def test_pixels_of_the_ignored_id_are_in_no_area(way: str) -> None:
    labels = np.array([[255, 255, 255, 255], [255, 1, 1, 255], [255, 1, 0, 255]], np.uint8)
    margin = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    one, zero = region_stats.compute(labels, 2, margin, ignored=255)
    assert (one.id, one.pixels, one.bbox) == (1, 3, (1, 1, 2, 2))
    assert one.confidence == pytest.approx((margin[1, 1] + margin[1, 2] + margin[2, 1]) / 3)
    assert (zero.id, zero.pixels, zero.bbox) == (0, 1, (2, 2, 1, 1))
    assert region_stats.compute(np.full((2, 2), 255, np.uint8), 2, margin, ignored=255) == []
    with pytest.raises(ValueError, match="id 2"):
        region_stats.compute(np.array([[2, 255]], np.uint8), 2, ignored=255)
