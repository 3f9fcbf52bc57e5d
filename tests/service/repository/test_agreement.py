"""The label-free measures against plain ones that share nothing with them: every pair, every assignment."""

import math
from fractions import Fraction
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.repository.agreement import agreement, contingency

TABLES = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 4), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


def points(table: list[list[int]]) -> list[tuple[int, int]]:
    """Every pixel of a table, by its two ids."""
    return [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]


def best(table: list[list[int]]) -> int:
    """Of the best assignment, all of them tried."""
    rows = table if len(table) <= len(table[0]) else [list(column) for column in zip(*table, strict=True)]
    return max(sum(rows[i][j] for i, j in enumerate(chosen)) for chosen in permutations(range(len(rows[0])), len(rows)))


def rand_of_pairs(ids: list[tuple[int, int]]) -> float | None:
    """Adjusted Rand from every pair of pixels, one by one."""
    together = [(a[0] == b[0], a[1] == b[1]) for a, b in combinations(ids, 2)]
    if not together:
        return None
    same = sum(x and y for x, y in together)
    first, second = sum(x for x, _ in together), sum(y for _, y in together)
    chance = Fraction(first * second, len(together))
    most = Fraction(first + second, 2)
    return None if most == chance else float((same - chance) / (most - chance))


def information(ids: list[tuple[int, int]]) -> float | None:
    """NMI from probabilities, by I = H + H' - H(both)."""

    def entropy(of: list[Any]) -> float:
        shares = [of.count(one) / len(of) for one in set(of)]
        return -sum(share * math.log2(share) for share in shares)

    first, second = entropy([a for a, _ in ids]), entropy([b for _, b in ids])
    return None if first + second == 0 else 2 * (first + second - entropy(ids)) / (first + second)


@given(TABLES)
@settings(max_examples=40, deadline=None)
def test_every_measure_is_what_counting_one_by_one_gives(table: list[list[int]]) -> None:
    ids, found = points(table), agreement(np.array(table, np.int64))
    if not ids:
        assert found is None
        return
    assert found is not None
    assert found.pixels == len(ids)
    assert found.one_to_one == best(table) / len(ids)
    assert found.into_new == sum(max(row) for row in table) / len(ids)
    assert found.into_old == sum(max(column) for column in zip(*table, strict=True)) / len(ids)
    assert found.adjusted_rand == rand_of_pairs(ids)
    wanted = information(ids)
    if wanted is None:
        assert found.mutual_information is None
    else:
        assert found.mutual_information == pytest.approx(wanted, abs=1e-9)
    for pair in found.pairs:
        ours, theirs = (
            {n for n, (a, _) in enumerate(ids) if a == pair.old},
            {n for n, (_, b) in enumerate(ids) if b == pair.new},
        )
        assert pair.pixels == len(ours & theirs) > 0
        assert pair.iou == len(ours & theirs) / len(ours | theirs)
    occur_old, occur_new = {a for a, _ in ids}, {b for _, b in ids}
    assert set(found.alone_old) == occur_old - {pair.old for pair in found.pairs}
    assert set(found.alone_new) == occur_new - {pair.new for pair in found.pairs}
    assert sum(found.alone_old.values()) == sum(a in found.alone_old for a, _ in ids)


def test_the_same_clusters_under_other_ids_agree_wholly() -> None:
    found = agreement(np.diag([5, 7, 11])[:, [2, 0, 1]])
    assert found is not None
    assert (found.one_to_one, found.into_new, found.into_old, found.adjusted_rand, found.mean_iou) == (1, 1, 1, 1, 1)
    assert found.mutual_information == 1
    assert [(pair.old, pair.new) for pair in found.pairs] == [(0, 1), (1, 2), (2, 0)]


def test_a_cluster_that_was_cut_in_two_keeps_one_partner() -> None:
    found = agreement(np.array([[60, 40, 0], [0, 0, 100]]))
    assert found is not None
    assert (found.one_to_one, found.into_new, found.into_old) == (0.8, 0.8, 1.0)
    assert found.alone_new == {1: 40}
    assert found.alone_old == {}
    assert found.mean_iou == (60 / 100 + 1) / 2


def test_one_cluster_only_is_not_defined_and_none_is_nothing() -> None:
    found = agreement(np.array([[9, 0], [0, 0]]))
    assert found is not None
    assert (found.one_to_one, found.adjusted_rand, found.mutual_information) == (1.0, None, None)
    half = agreement(np.array([[3, 4]]))  # one cluster in the one, two in the other
    assert half is not None
    assert (half.adjusted_rand, half.mutual_information) == (0.0, 0.0)
    assert agreement(np.zeros((3, 4), np.int64)) is None


def test_nothing_is_rounded_at_petapixels() -> None:
    """The same table a hundred million million times: shares stay what they were, adjusted Rand goes to its limit."""
    small = np.array([[5, 1], [2, 4]])
    found, large = agreement(small), agreement(small * 10**14)
    assert found is not None
    assert large is not None
    assert large.one_to_one == found.one_to_one
    assert large.mutual_information == pytest.approx(found.mutual_information, abs=1e-12)
    n, s = 12, sum(int(c) ** 2 for c in small.ravel())
    a, b = sum(int(c) ** 2 for c in small.sum(1)), sum(int(c) ** 2 for c in small.sum(0))
    limit = Fraction(s * n * n - a * b, 1) / (Fraction(a + b, 2) * n * n - a * b)
    assert large.adjusted_rand == pytest.approx(float(limit), abs=1e-12)


def test_tables_count_what_both_maps_hold() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.integers(0, 5, (60, 41), np.uint8), rng.integers(0, 7, (60, 41), np.uint8)
    old[:3], new[:, :2] = 255, 255
    wanted = np.zeros((5, 7), np.int64)
    for a, b in zip(old.ravel(), new.ravel(), strict=True):
        if a != 255 and b != 255:
            wanted[a, b] += 1
    np.testing.assert_array_equal(contingency(old, new, 5, 7, ignored=255), wanted)
    assert wanted.sum() == 57 * 39
    with pytest.raises(ValueError, match="do not show the same"):
        contingency(old, new[:5], 5, 7, ignored=255)


def test_large_maps_are_counted_strip_by_strip() -> None:
    old = np.broadcast_to(np.arange(2, dtype=np.uint8), (3, 2)).repeat(200_000, axis=1)
    np.testing.assert_array_equal(
        contingency(old, old[:, ::-1], 2, 2, ignored=255), np.array([[0, 600_000], [600_000, 0]])
    )
