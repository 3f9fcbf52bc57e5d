"""What is measured about a label map, against the slow and plain way."""

from __future__ import annotations

import numpy as np
import pytest

from service import pipeline
from service.pipeline import measure


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (300, 7), (5, 2000)])
@pytest.mark.parametrize("strip", [16, 2**20])
def test_measure(shape: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_COUNTED_PX", strip)
    rng = np.random.default_rng(sum(shape))
    labels = (rng.integers(0, 9, shape) * (rng.random(shape) < 0.3)).astype(np.uint8)
    margin = rng.random(shape, np.float32)
    areas = measure(labels, 9, margin)
    assert [a.pixels for a in areas] == sorted((a.pixels for a in areas), reverse=True)
    assert {a.id for a in areas} == set(labels.ravel().tolist())
    for area in areas:
        rows, columns = np.nonzero(labels == area.id)
        x, y, width, height = area.bbox
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert area.pixels == len(rows)
        assert area.confidence == pytest.approx(margin[labels == area.id].mean(), rel=1e-4)


def test_a_small_margin_map_stands_for_the_whole_image() -> None:
    labels = np.repeat(np.repeat(np.array([[0, 1], [1, 0]], np.uint8), 10, 0), 10, 1)
    margin = np.array([[0.2, 0.6], [0.4, 0.8]], np.float32)
    assert {a.id: round(a.confidence, 3) for a in measure(labels, 2, margin)} == {0: 0.5, 1: 0.5}
