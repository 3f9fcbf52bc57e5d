"""Windows against one pass of a network that sees no farther than a cell, and against each other where one does."""

import numpy as np
import pytest

from models import assign, windows
from models.preprocess import InputSpec
from models.windows import Blend, Layout, Strip
from tests.tiny import CENTROIDS, STRIDE, MeanColor

SPEC = InputSpec(size=(64, 64), multiple=8)
K = len(CENTROIDS)


def cells(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [H, W, 3]: every cell of one color."""
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // STRIDE), -(-width // STRIDE), 3), np.uint8)
    return small.repeat(STRIDE, 0).repeat(STRIDE, 1)[:height, :width]


def strips(image: np.ndarray, layout: Layout) -> list[Strip]:
    blend, done = Blend(layout), []
    for row in range(len(layout.rows)):
        top, bottom = layout.span(row)
        for window in layout.in_row(row):
            pixels = layout.cut(image[top:bottom], window)
            assert pixels.shape == (*layout.window, 3)
            scores, code = MeanColor()(pixels[None], code=True)
            assert code is not None
            blend.add(window, np.concatenate([scores[0], code[0]]))
        done.append(blend.finish_row())
    return done


@pytest.mark.parametrize("size", [(200, 312), (64, 64), (65, 64), (72, 300), (16, 24), (203, 157), (1, 1), (8, 1000)])
def test_a_network_that_sees_a_cell_says_the_same_in_windows(size: tuple[int, int]) -> None:
    image = cells(*size)
    found = strips(image, Layout.of(size, SPEC, STRIDE))
    whole = np.pad(image, ((0, -size[0] % STRIDE), (0, -size[1] % STRIDE), (0, 0)), mode="edge")
    scores, code = MeanColor()(whole[None], code=True)
    box = (0.0, 0.0, size[0] / whole.shape[0], size[1] / whole.shape[1])
    assert [strip.rows[0] for strip in found[1:]] == [strip.rows[1] for strip in found[:-1]]
    labels = np.concatenate([strip.labels(K) for strip in found])
    margins = np.concatenate([strip.margin(K) for strip in found])
    assert labels.shape == size
    assert code is not None
    expected = assign.margin(scores[0], code[0], size, box=box)
    assert np.abs(margins - expected).max() < 1e-5
    assert (labels == assign.labels(scores[0], size, box))[expected > 1e-5].all()
    nearest = np.concatenate([strip.labels(K, "nearest") for strip in found])
    assert (nearest == assign.labels(scores[0], size, box, "nearest")).all()


def test_every_cell_is_seen_and_its_weights_sum_to_one() -> None:
    for height, width in [(65, 5000), (64, 112), (1000, 113), (72, 200)]:
        layout = Layout.of((height, width), SPEC, STRIDE)
        assert layout.grid == (-(-max(height, 64) // STRIDE), -(-max(width, 64) // STRIDE))
        total = np.zeros(layout.grid)
        for row in range(len(layout.rows)):
            for window in layout.in_row(row):
                top, left = window.top // STRIDE, window.left // STRIDE
                total[top : top + 8, left : left + 8] += (
                    layout.weights[0][window.row][:, None] * layout.weights[1][window.column]
                )
        assert np.allclose(total, 1)
        assert all(later - earlier <= 6 for earlier, later in zip(layout.columns, layout.columns[1:], strict=False))


def test_a_grid_of_another_size_is_brought_to_the_cells() -> None:
    spec = InputSpec(size=(60, 60), resize="stretch")
    layout = Layout.of((60, 60), spec, 8)
    assert layout.cell == 4
    blend = Blend(layout)
    maps = np.random.default_rng(0).normal(size=(3, 7, 7)).astype(np.float32)
    (window,) = layout.in_row(0)
    blend.add(window, maps)
    assert (blend.finish_row().labels(3) == assign.labels(maps, (60, 60))).mean() > 0.9


def test_windows_do_not_show_where_a_network_is_unsure_near_its_border() -> None:
    """Scores that depend on where in the window a cell lies: the worst that windows can meet."""
    rng = np.random.default_rng(1)
    world = assign.plain_labels(rng.normal(size=(5, 12, 12)).astype(np.float32), (96, 96))
    truth = np.stack([world == k for k in range(5)]).astype(np.float32)
    border = rng.normal(size=(5, 8, 8)).astype(np.float32)
    at = np.minimum(np.arange(8), np.arange(8)[::-1])
    border *= np.maximum(0, 2.5 - np.minimum(at[:, None], at)) * 0.4

    def answer(shift: int) -> np.ndarray:
        size = (96 - shift) * STRIDE, (96 - shift) * STRIDE
        layout = Layout.of(size, SPEC, STRIDE)
        blend, done = Blend(layout), []
        for row in range(len(layout.rows)):
            for window in layout.in_row(row):
                top, left = window.top // STRIDE + shift, window.left // STRIDE + shift
                blend.add(window, truth[:, top : top + 8, left : left + 8] + border)
            done.append(blend.finish_row().labels(5))
        return np.concatenate(done)

    labels, shifted = answer(0)[3 * STRIDE :, 3 * STRIDE :], answer(3)
    starts = Layout.of((96 * STRIDE, 96 * STRIDE), SPEC, STRIDE).columns
    edges = sorted({x for start in starts for x in (start, start + 8) if 3 < x < 96})
    seam = np.concatenate([np.arange((x - 4) * STRIDE, (x - 2) * STRIDE) for x in edges])
    inside = np.setdiff1d(np.arange(labels.shape[1]), seam)
    differs = labels != shifted
    assert differs[:, seam].mean() <= differs[:, inside].mean() + 0.01


def test_shrinking_counts_the_side_that_loses_least() -> None:
    assert windows.shrinks((640, 960), InputSpec(size=(240, 240), multiple=16)) == pytest.approx(640 / 240)
    assert windows.shrinks((1000, 3000), InputSpec(size=(100, 300), resize="stretch", multiple=1)) == 10


def test_more_windows_than_anybody_waits_for_are_refused() -> None:
    with pytest.raises(ValueError, match="windows"):
        Layout.of((2**20, 2**20), SPEC, STRIDE)


def test_a_window_may_be_a_single_cell() -> None:
    image = cells(40, 60)
    found = strips(image, Layout.of((40, 60), InputSpec(size=(8, 8), multiple=8), STRIDE))
    labels = np.concatenate([strip.labels(K, "nearest") for strip in found])
    scores, _ = MeanColor()(np.pad(image, ((0, 0), (0, 4), (0, 0)), mode="edge")[None])
    assert (labels == assign.labels(scores[0], (40, 60), (0, 0, 1, 60 / 64), "nearest")).all()
