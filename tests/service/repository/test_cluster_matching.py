"""Matching: the assignment is the best there is, and only what clearly belongs together is paired."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle, Golden
from models.inference import Prediction, Predictor, segment
from service.repository.cluster_matching import Fingerprint, certain, cosines, hungarian, match, overlaps
from tests.tiny import CENTROIDS, MeanColor, bands


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def golden(bundle: Bundle, encode: Predictor, photo: np.ndarray) -> Golden:
    return Golden(photo, segment(bundle, encode, photo))


def fingerprint(bundle: Bundle, photo: np.ndarray) -> Fingerprint:
    return Fingerprint(CENTROIDS, golden(bundle, MeanColor(), photo))


class Turned(MeanColor):
    """The same clusters under other ids; with `mixed`, in another code space too."""

    def __init__(self, order: list[int], *, mixed: bool = False) -> None:
        self.order, self.mixed = order, mixed

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        encoded = super().__call__(pixels, code=True)
        assert encoded.code is not None
        space = encoded.code[:, ::-1] * -1 if self.mixed else encoded.code
        return Prediction(encoded.scores[:, self.order], space if code else None)

    @property
    def centroids(self) -> np.ndarray:
        rows = CENTROIDS[self.order]
        return rows[:, ::-1] * -1 if self.mixed else rows


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3), (5, 5), (4, 6), (6, 4)])
def test_the_assignment_is_the_best_of_all(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    for ties in (False, True):
        for _ in range(20):
            cost = rng.integers(0, 4, shape).astype(float) if ties else rng.normal(size=shape)
            rows, columns = hungarian(cost)
            assert len(rows) == min(shape)
            assert len(set(rows)) == len(set(columns)) == min(shape)
            assert rows.tolist() == sorted(rows)
            small = cost if shape[0] <= shape[1] else cost.T
            best = min(
                sum(small[i, p] for i, p in enumerate(chosen))
                for chosen in permutations(range(small.shape[1]), small.shape[0])
            )
            assert cost[rows, columns].sum() == pytest.approx(best)


@pytest.mark.parametrize("shape", [(27, 27), (80, 60), (100, 255), (255, 255)])
def test_the_assignment_costs_what_scipys_does(shape: tuple[int, int]) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    cost = np.random.default_rng(shape[0]).normal(size=shape)
    rows, columns = hungarian(cost)
    assert cost[rows, columns].sum() == pytest.approx(cost[optimize.linear_sum_assignment(cost)].sum())


@pytest.mark.parametrize("mixed", [False, True])
def test_clusters_under_other_ids_are_found_again(bundle: Bundle, mixed: bool) -> None:
    order = [3, 0, 4, 1, 2]
    new = Turned(order, mixed=mixed)
    found = match(fingerprint(bundle, bands(48, 80)), replace(bundle, centroids=new.centroids), new)
    assert found.by == ("overlap" if mixed else "centroids")
    assert {old: pair.new for old, pair in found.pairs.items()} == {o: n for n, o in enumerate(order)}
    assert min(pair.score for pair in found.pairs.values()) > 0.99


def test_only_what_was_seen_is_told_by_overlap(bundle: Bundle) -> None:
    new = Turned([1, 0, 2, 3, 4], mixed=True)
    turned = replace(bundle, centroids=new.centroids)
    old = fingerprint(bundle, bands(48, 80, (0, 1)))
    assert set(match(old, turned, new).pairs) == {0, 1}
    more = bands(48, 80, (2, 3))
    also = [(segment(bundle, MeanColor(), more), segment(turned, new, more))]
    assert set(match(old, turned, new, also).pairs) == {0, 1, 2, 3}


def test_a_code_of_another_dimension_is_told_by_overlap(bundle: Bundle) -> None:
    wide = fingerprint(bundle, bands(48, 80))._replace(centroids=np.pad(CENTROIDS, ((0, 0), (0, 2))))
    found = match(wide, bundle, MeanColor())
    assert found.by == "overlap"
    assert {i: p.new for i, p in found.pairs.items()} == {i: i for i in range(5)}


def test_overlap_is_intersection_over_union_over_all_images() -> None:
    old = np.repeat(np.uint8([0, 1]), 100).reshape(10, 20)
    new = np.repeat(np.uint8([0, 0, 1, 1]), [100, 50, 40, 10]).reshape(10, 20)
    shared = overlaps([(old, new), (old, new)], 2, 3)
    np.testing.assert_allclose(shared, [[100 / 150, 0, 0], [50 / 200, 50 / 100, 0]])


def test_a_few_pixels_say_nothing() -> None:
    speck = np.zeros((7, 9), np.uint8)
    assert overlaps([(speck, speck)], 1, 1).max() == 0


def test_what_is_not_alike_or_has_two_takers_is_not_paired() -> None:
    alike = np.array([[0.95, 0.1, 0.0], [0.2, 0.7, 0.7], [0.0, 0.4, 0.3]])
    assert set(certain(alike, 0.5)) == {0}
    assert certain(alike, 0.96) == {}
    split = np.array([[0.6], [0.55]])  # two old ones became one: it is the nearer one's
    assert {p.old: p.new for p in certain(split, 0.5).values()} == {0: 0}


def test_cosines_do_not_depend_on_length() -> None:
    rows = np.array([[1.0, 0], [0, 3], [-2, 0]], np.float32)
    np.testing.assert_allclose(cosines(rows, rows * 7), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
