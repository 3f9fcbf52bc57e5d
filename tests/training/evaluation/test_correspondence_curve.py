"""Pairs are counted right, and the curve is the one that sorting gives."""

import numpy as np
import pytest

from training.evaluation.correspondence_curve import KINDS, PairCounts, Places, curves, places


def exact(similarity: np.ndarray, same: np.ndarray) -> float:
    """Average precision by sorting: the mean, over the pairs of one class, of the precision at their rank."""
    order = np.argsort(-similarity, kind="stable")
    hits = same[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def test_binned_average_precision_is_the_sorted_one() -> None:
    rng = np.random.default_rng(0)
    same = rng.random(20_000) < 0.3
    similarity = np.clip(rng.normal(0.35 * same, 0.3), -1, 1)
    counts = PairCounts()
    for part in np.array_split(np.arange(20_000), 7):
        counts.add(similarity[part], same[part])
    curve = counts.curve()
    assert curve is not None
    assert curve.average_precision == pytest.approx(exact(similarity, same), abs=2e-3)
    assert curve.pairs == 20_000
    assert curve.positives == pytest.approx(same.mean())
    assert curve.recall[-1] == 1
    assert same.mean() <= curve.precision[-1] < same.mean() + 0.01  # hardly a pair is below the last of one class
    assert curve.precision[0] > 0.85


def test_no_pair_of_one_class_no_curve() -> None:
    counts = PairCounts()
    assert counts.curve() is None
    counts.add(np.array([0.5]), np.array([False]))
    assert counts.curve() is None


def halves(seed: int, noise: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Sky over ground on a grid of 8×8, cells of 4×4 pixels: "good" tells the halves apart, "blind" does not."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.array([0] * 16 + [1] * 16, np.uint8)[:, None], 32, axis=1)
    good = np.zeros((2, 8, 8), np.float32)
    good[0, :4], good[1, 4:] = 1, 1
    good += rng.normal(0, noise, good.shape).astype(np.float32)
    return {"good": good, "blind": rng.normal(size=(2, 8, 8)).astype(np.float32)}, labels


def test_places_are_labelled_points() -> None:
    maps, labels = halves(0, 0.0)
    labels[:, :16] = 255
    found = places(maps, labels, (0.0, 0.0, 1.0, 1.0), np.random.default_rng(0))
    assert found is not None
    assert set(found.labels.tolist()) == {0, 1}
    assert np.linalg.norm(found.vectors["good"], axis=1) == pytest.approx(1, abs=1e-5)
    sure = found.vectors["good"].max(axis=1) > 0.99  # away from the horizon a point looks like its half
    assert sure.mean() > 0.8
    assert (found.vectors["good"].argmax(axis=1) == found.labels)[sure].all()
    labels[:] = 255
    assert places(maps, labels, (0.0, 0.0, 1.0, 1.0), np.random.default_rng(0)) is None


def test_letterboxed_maps_are_read_inside_the_box() -> None:
    maps, labels = halves(0, 0.0)
    inside = {"good": np.pad(maps["good"], ((0, 0), (4, 4), (0, 0)), constant_values=-5)}
    found = places(inside, labels, (0.25, 0.0, 0.5, 1.0), np.random.default_rng(0))
    assert found is not None
    assert (found.vectors["good"].argmax(axis=1) == found.labels).mean() > 0.9


def test_what_tells_classes_apart_has_the_better_curve() -> None:
    found = []
    for i in range(6):
        maps, labels = halves(i, 0.2)
        one = places(maps, labels, (0.0, 0.0, 1.0, 1.0), np.random.default_rng(i))
        assert one is not None
        found.append(one)
    drawn = curves(found, seed=0)
    assert list(drawn) == list(KINDS)
    for by_source in drawn.values():
        assert by_source["good"].average_precision > 0.9
        assert by_source["blind"].average_precision < 0.65
    assert curves(found, seed=0) == drawn
    assert drawn[KINDS[0]]["good"].pairs == 6 * 128 * 127  # a point is not paired with itself
    assert list(curves(found[:1], seed=0)) == [KINDS[0]]


def test_neighbors_are_those_of_the_first_source() -> None:
    def place(label: int, mean: list[float]) -> Places:
        vector = np.array([[1.0, 0.0]], np.float32)
        return Places(np.array([label]), {"features": vector}, {"features": np.array(mean, np.float32)})

    found = [place(0, [1, 0]), place(1, [0, 1]), place(0, [0.9, 0.1]), place(1, [0.1, 0.9])]
    assert curves(found, seed=0)[KINDS[1]]["features"].average_precision == 1.0
