"""The files that the benchmark of large images draws are what it says, and its bounds bind."""

import os

import numpy as np
import pytest

from benchmarks import large
from benchmarks.large import BOUNDS, FILES, Bound, Cost
from benchmarks.own_server import OwnServer
from models.io.decode import inspect


@pytest.mark.parametrize("case", FILES)
def test_a_drawn_file_is_the_picture_of_its_case(case: str) -> None:
    per_pixel, draw = FILES[case]
    decoded = inspect(draw(600)).decode()
    assert decoded.image.shape == (600, 600, 3)
    assert decoded.depth_rule is not None
    gray = case in ("float32", "int32")
    assert per_pixel == (4 if gray else 6)
    drawn = large.colors(600)[..., 1].astype(float).ravel()
    assert np.corrcoef(drawn, decoded.image[..., 1].ravel())[0, 1] > 0.98


def test_the_images_of_one_request_differ() -> None:
    files = large.many(3, 64)
    assert len(set(files)) == 3
    assert {inspect(file).size for file in files} == {(64, 64)}


def test_memory_that_comes_and_goes_is_seen_and_bounds_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_SETTLED_S", 0.0)
    with large.watched(OwnServer(os.getpid(), 0, 0.0)) as cost:
        held = np.ones(20 * 2**20)
        for _ in range(20):
            held.sum()
        del held
    seen = cost()
    assert seen.peak_mb > 140
    assert seen.cpu_s > 0
    monkeypatch.setitem(BOUNDS, "strips", Bound(peak_mb=100, cpu_s=9))
    assert "MB over idle" in large.passed("strips", seen, 0)[0]
    assert large.passed("strips", Cost(99, 8, 8), 0) == []
    assert large.passed("png16", Cost(161, 0, 0), 100)
    assert not large.passed("png16", Cost(159, 0, 0), 100)
    assert large.passed("beside", Cost(0, 0, 0, 1.1), 0)
    assert set(BOUNDS) - {"many", "beside"} == set(FILES)
