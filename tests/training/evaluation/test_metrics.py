"""Scoring: what is counted, what is an error, what is left out."""

import numpy as np
import pytest

from training.evaluation.metrics import EXTRA, confusion, score


def test_renamed_clusters_are_perfect():
    true = np.random.default_rng(0).integers(0, 4, (20, 30))
    found = score(confusion(np.array([2, 0, 3, 1])[true], true, 4, 4))
    assert found.miou == found.accuracy == 1.0
    assert found.match.tolist() == [1, 3, 0, 2]


def test_ignored_pixels_do_not_count():
    true = np.array([0, 1, 255, -1, 2])
    assert confusion(np.zeros(5, np.uint8), true, 2, 2).tolist() == [[1, 1], [0, 0]]


def test_confusions_add_up():
    rng = np.random.default_rng(1)
    predicted, true = rng.integers(0, 5, (2, 99)), rng.integers(0, 3, (2, 99))
    halves = confusion(predicted[0], true[0], 5, 3) + confusion(predicted[1], true[1], 5, 3)
    assert halves.dtype == np.int64
    assert np.array_equal(halves, confusion(predicted, true, 5, 3))


def test_extra_clusters_are_errors():
    true = np.repeat([0, 1], 50)
    predicted = true.copy()
    predicted[:20] = 2
    found = score(confusion(predicted, true, 3, 2))
    assert found.match.tolist() == [0, 1, EXTRA]
    assert found.accuracy == pytest.approx(0.8)
    assert found.iou == pytest.approx([30 / 50, 1.0])


def test_fewer_clusters_than_classes():
    true = np.repeat([0, 1, 2], [60, 30, 10])
    found = score(confusion(np.minimum(true, 1), true, 2, 3))
    assert found.iou == pytest.approx([1.0, 0.75, 0.0])
    assert found.miou == pytest.approx(1.75 / 3)


def test_absent_classes_are_left_out():
    found = score(confusion(np.zeros(9, int), np.zeros(9, int), 3, 3))
    assert np.isnan(found.iou[1:]).all()
    assert found.miou == 1.0


def test_a_class_that_no_map_holds_is_matched_to_no_cluster():
    true = np.repeat([1, 2], [60, 40])  # labels that count from 1
    predicted = np.repeat([0, 1, 2], [50, 30, 20])
    wanted = score(confusion(predicted, true - 1, 3, 2))
    found = score(confusion(predicted, true, 3, 5))
    assert found.match.tolist() == [1, 2, EXTRA]
    assert found.iou[1:3] == pytest.approx(wanted.iou)
    assert (found.miou, found.accuracy, found.mean_precision) == (wanted.miou, wanted.accuracy, wanted.mean_precision)


def test_what_a_probe_takes_for_an_absent_class_is_wrong_and_no_further_class():
    true = np.repeat([0, 1], 10)
    predicted = true.copy()
    predicted[:2] = 2
    found = score(confusion(predicted, true, 3, 3), np.arange(3))
    assert found.iou[:2] == pytest.approx([0.8, 1.0])
    assert np.isnan(found.iou[2])
    assert (found.miou, found.accuracy) == (pytest.approx(0.9), pytest.approx(0.9))
    assert found.mean_precision == 1.0


def test_a_given_match_replaces_the_hungarian():
    true = np.repeat([0, 1], 10)
    counts = confusion(1 - true, true, 2, 2)
    assert score(counts).accuracy == 1.0
    assert score(counts, np.arange(2)).accuracy == 0.0


def test_precision_is_of_what_was_predicted():
    true = np.repeat([0, 1, 2], [60, 30, 10])
    found = score(confusion(np.minimum(true, 1), true, 2, 3))
    assert found.precision[:2] == pytest.approx([1.0, 0.75])
    assert np.isnan(found.precision[2])
    assert found.mean_precision == pytest.approx(0.875)


def test_odd_input_is_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        confusion(np.zeros(3, int), np.zeros(4, int), 2, 2)
    with pytest.raises(ValueError, match="do not fit 2 clusters"):
        confusion(np.array([0, 5]), np.array([0, 1]), 2, 2)
    assert np.isnan(score(np.zeros((2, 2), int)).accuracy)
