"""The guided filter: edges found inside a cell of the grid, and the kernel against numpy."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models import guided
from models.deadline import DeadlineExceeded
from models.native import bindings

HERE = (0.1, 0.25, 0.8, 0.5)


def edge() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two colors whose border runs through the middle of cells: truth, photo, probabilities [2, 8, 10] of the cells."""
    truth = np.zeros((64, 80), np.uint8)
    truth[:, 43:] = 1
    photo = np.array([[180, 40, 60], [50, 90, 170]], np.uint8)[truth]
    share = truth.reshape(8, 8, 10, 8).mean(axis=(1, 3)).astype(np.float32)
    return truth, photo, np.stack([1 - share, share])


def test_an_edge_is_found_inside_a_cell() -> None:
    truth, photo, probabilities = edge()
    np.testing.assert_array_equal(guided.refine(probabilities, photo, photo), truth)


def test_where_colors_are_flat_the_grid_is_interpolated() -> None:
    _, photo, probabilities = edge()
    flat = np.full_like(photo, 90)
    labels = guided.refine(probabilities, flat, flat, radius=0)
    assert (labels[:, :40] == 0).all()
    assert (labels[:, 48:] == 1).all()


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), HERE])
@pytest.mark.parametrize("k", [1, 5, 27])
def test_the_kernel_is_numpy(k: int, box: tuple[float, float, float, float]) -> None:
    if not bindings.compiled():
        pytest.skip("the kernel is not compiled here")
    rng = np.random.default_rng(k)
    probabilities = rng.random((k, 9, 12)).astype(np.float32)
    photo = rng.integers(0, 256, (70, 50, 3), np.uint8)
    models = guided.linear_models(probabilities, photo[:9, :12], 2, 50.0)
    plain, compiled = guided.plain_labels(models, photo, box), guided._compiled_labels(models, photo, box)
    assert compiled is not None
    assert (plain == compiled).mean() > 0.999, "sums in another order"


@pytest.mark.parametrize("threads", [1, 3])
def test_strips_are_the_whole(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((5, 9, 12)).astype(np.float32)
    photo = rng.integers(0, 256, (70, 50, 3), np.uint8)
    whole = guided.refine(probabilities, photo, photo, HERE)
    monkeypatch.setattr(guided, "STRIP", 50 * 16)
    np.testing.assert_array_equal(guided.refine(probabilities, photo, photo, HERE, threads=threads), whole)


def test_it_keeps_to_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    _, photo, probabilities = edge()
    guided.refine(probabilities, photo, photo, deadline=time.monotonic() + 20)
    with pytest.raises(DeadlineExceeded):
        guided.refine(probabilities, photo, photo, deadline=time.monotonic())
    if not bindings.compiled():
        pytest.skip("the kernel is not compiled here")
    monkeypatch.setattr(guided, "STRIP", 1)
    looks = iter([None, None, None, DeadlineExceeded("over")])

    def look(deadline: float | None) -> None:
        if over := next(looks):
            raise over

    monkeypatch.setattr(guided, "check_time", look)
    with pytest.raises(DeadlineExceeded, match="over"):
        guided.refine(probabilities, photo, photo)


def test_boxes_are_means() -> None:
    maps = np.random.default_rng(0).random((2, 6, 7)).astype(np.float32)
    found = guided._boxed(maps, 2)
    for y in range(6):
        for x in range(7):
            around = maps[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            np.testing.assert_allclose(found[:, y, x], around.mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(guided._boxed(maps, 50)[:, 3, 3], maps.mean(axis=(1, 2)), rtol=1e-4)


def test_no_numba_for_the_fast_way() -> None:
    code = "import sys, models.refine; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
