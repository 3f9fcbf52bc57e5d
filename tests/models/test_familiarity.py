"""What is familiar: numbers of cells and margins alone."""

import numpy as np
import pytest

from models import assign, familiarity
from models.familiarity import Tally, share_less_sure, sureness


def test_a_mixture_like_the_training_images_keeps_its_mean_margin_and_any_other_loses() -> None:
    fractions, margins = [0.5, 0.3, 0.2], np.array([0.6, 0.4, 0.2])
    like = np.array([50.0, 30.0, 20.0])
    assert sureness(like, like * margins, fractions) == pytest.approx((like * margins).sum() / 100)
    rng = np.random.default_rng(0)
    others = rng.integers(0, 50, (200, 3)).astype(float)
    found = sureness(others, others * 0.5, fractions)
    assert (found <= 0.5 + 1e-12).all()
    assert (found >= 0).all()
    assert sureness(np.zeros(3), np.zeros(3), fractions) == 0


def test_a_speck_of_a_cluster_says_as_much_as_it_is_large() -> None:
    without = sureness(np.array([100.0, 0.0]), np.array([50.0, 0.0]), [0.5, 0.5])
    with_it = sureness(np.array([99.0, 1.0]), np.array([49.5, 1.0]), [0.5, 0.5])
    assert with_it - without == pytest.approx(0.01)


def test_parts_of_an_image_add_up_and_cells_without_data_are_none() -> None:
    rng = np.random.default_rng(1)
    labels, margin = rng.integers(0, 4, (6, 8)).astype(np.uint8), rng.random((6, 8), np.float32)
    whole, parts = Tally(), Tally()
    whole.add(labels, margin)
    parts.add(labels[:2], margin[:2])
    parts.add(labels[2:], margin[2:])
    assert parts.sureness([0.25] * 4) == pytest.approx(whole.sureness([0.25] * 4))
    assert whole.mean_margin(4) == pytest.approx(margin.mean())
    nothing = Tally()
    nothing.add(np.full((2, 2), 255, np.uint8), margin[:2, :2])
    assert (nothing.sureness([0.5, 0.5]), nothing.mean_margin(2)) == (None, None)
    nothing.add(np.zeros((1, 1), np.uint8), np.full((1, 1), 0.5, np.float32))
    assert nothing.sureness([0.5, 0.5]) == pytest.approx(0.25)


def test_cells_outside_the_box_and_cells_without_data_do_not_count() -> None:
    scores = np.zeros((2, 4, 4), np.float32)
    scores[0, 1:3], scores[1, [0, 3]] = 0.8, 1.0  # the upper and the lower row are a letterbox's border
    found = familiarity.tally(scores, None, assignment="dot", box=(0.25, 0, 0.5, 1))
    assert found.cells[:2].tolist() == [8, 0]
    assert found.mean_margin(2) == pytest.approx(0.8)
    known = np.zeros((2, 4), bool)
    known[0, 0] = True
    assert familiarity.tally(scores, None, known, assignment="dot", box=(0.25, 0, 0.5, 1)).cells[:2].tolist() == [1, 0]


def test_cells_are_those_of_the_labels_and_margins_on_the_grid() -> None:
    rng = np.random.default_rng(3)
    scores, code = rng.standard_normal((5, 7, 9)).astype(np.float32), rng.standard_normal((4, 7, 9)).astype(np.float32)
    labels, margin = assign.labels(scores, (7, 9)), assign.margin(scores, code, (7, 9))
    found = familiarity.tally(scores, code, assignment="cosine")
    assert found.cells.tolist() == np.bincount(labels.ravel(), minlength=256).tolist()
    assert found.margins[2] == pytest.approx(margin[labels == 2].sum())
    again = familiarity.tally(scores, None, assignment="cosine", ranked=assign.ranked(scores, code, (7, 9)))
    assert (again.margins == found.margins).all()


def test_the_share_is_0_to_1_grows_with_sureness_and_hits_the_quantiles() -> None:
    rng = np.random.default_rng(2)
    for values in (rng.random(500), rng.random(7), np.repeat(rng.random(5), 20), np.full(9, 0.25), np.array([0.5])):
        quantiles, threshold = familiarity.quantiles(values)
        assert quantiles == sorted(quantiles)
        assert len(quantiles) == familiarity.PERCENTILES
        assert quantiles[0] <= threshold <= quantiles[-1]
        found = [share_less_sure(at, quantiles) for at in np.linspace(0, 1, 1001)]
        assert found == sorted(found)
        assert 0 <= found[0] <= found[-1] <= 1
        assert (share_less_sure(quantiles[0] - 1e-3, quantiles), share_less_sure(quantiles[-1] + 1e-3, quantiles)) == (
            0,
            1,
        )
    quantiles, threshold = familiarity.quantiles(np.linspace(0.2, 0.7, 1001))
    assert share_less_sure(0.45, quantiles) == pytest.approx(0.5)
    assert share_less_sure(threshold, quantiles) == pytest.approx(familiarity.UNLIKE)
    with pytest.raises(ValueError, match="no image"):
        familiarity.quantiles(np.empty(0))
