"""Pieces that are joined and given away, on drawn regions of which the truth is known."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import average, cut_tree
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn import functional as F

from models.errors import TesseraError
from training.clustering.hierarchy import average_linkage
from training.clustering.kmeans import kmeans
from training.discovery import merging
from training.discovery.merging import MergeOptions, RegionRows, adjusted_rand, merge

FEW = MergeOptions(runs=3, pieces=3, least_pieces=12, regions_each=4, draws=1)


def streets(*, images: int = 30, seed: int = 0) -> tuple[RegionRows, Tensor]:
    """Regions of four things, one of which looks three ways, one of them small and beside another: rows, and the thing.

    Things 0 (three looks), 1 and 2 are large; 3 is a fifth of 2's regions, tiny, and nearly looks like it.
    """
    random = np.random.default_rng(seed)
    look = np.tile([0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5], images)
    thing = np.array([0, 0, 0, 1, 2, 3])[look]
    of_thing, of_look = np.array([0, 1, 2, 2])[thing], np.eye(8)[[0, 1, 2, 3, 4, 5]][look]
    codes = 2.0 * np.eye(4)[of_thing] @ np.eye(4, 8, 4) + of_look + 0.12 * random.normal(size=(len(look), 8))
    codes = torch.from_numpy(codes - codes.mean(0)).float()
    texture = torch.from_numpy(
        np.array([3.0, 0.0, 1.0, 1.0])[thing][:, None] + 0.3 * random.normal(size=(len(look), 5))
    )
    weight = torch.from_numpy(np.array([8.0, 6.0, 6.0, 4.0])[thing])
    image = torch.arange(images).repeat_interleave(13)
    return RegionRows(codes, F.normalize(codes, dim=1), texture, image, weight), torch.from_numpy(thing)


def right(labels: Tensor, truth: Tensor, weight: Tensor) -> float:
    """Share of the weight whose cluster mostly shows its thing, one cluster a thing."""
    table = (F.one_hot(labels).double() * weight[:, None]).T @ F.one_hot(truth).double()
    return max(
        float(sum(table[one, thing] for thing, one in enumerate(chosen)) / table.sum())
        for chosen in _choices(len(table), table.shape[1])
    )


def _choices(clusters: int, things: int) -> list[tuple[int, ...]]:
    from itertools import permutations

    return list(permutations(range(clusters), min(clusters, things)))


def test_what_looks_several_ways_stays_one() -> None:
    rows, thing = streets(images=12)
    found = merge(rows, 3, FEW)
    large = thing.clamp(max=2)
    assert found.groups == found.clusters == 3
    assert right(found.soft(rows.points).argmax(1), large, rows.weight) > 0.95
    by_kmeans = kmeans(rows.points, 4, restarts=5)[1]
    assert right(by_kmeans, large, rows.weight) < 0.85


def test_what_is_small_comes_out() -> None:
    rows, thing = streets(images=12)
    labels = merge(rows, 6, FEW).soft(rows.points).argmax(1)
    of_small = labels[thing == 3].mode().values
    assert float((labels[thing == 3] == of_small).float().mean()) > 0.95
    assert float((thing[labels == of_small] == 3).float().mean()) > 0.95


def test_fewer_clusters_than_groups_are_groups_joined() -> None:
    rows, thing = streets()
    found = merge(rows, 2, FEW)
    assert found.clusters == 2
    shares = found.soft(rows.points)
    assert shares.sum(1).allclose(torch.ones(len(rows)))
    whole = [shares[thing == one].argmax(1).bincount(minlength=2).max() / (thing == one).sum() for one in range(3)]
    assert min(whole) > 0.95


@pytest.mark.parametrize("k", [3, 5, 8, 12])
def test_as_many_clusters_as_were_asked_for(k: int) -> None:
    rows, _ = streets(images=12)
    found = merge(rows, k, FEW)
    assert found.clusters == k
    assert found.own.unique().tolist() == list(range(k))  # type: ignore[no-untyped-call]


def test_what_a_group_gives_is_small_and_mostly_known_to_the_runs() -> None:
    rows, _ = streets()
    pieces = merging._Pieces(rows, 6, FEW, 0)
    before, after = pieces.cut(3), pieces.clusters(6, 3)
    for given in range(3, 6):
        member = after == given
        assert len(before[member].unique()) == 1  # type: ignore[no-untyped-call]
        assert 1 / 48 <= float(pieces.weight[member].sum()) <= 1 / 24
        assert len((member.nonzero()[:, 0] // pieces.count).unique()) >= 2  # type: ignore[no-untyped-call]


def test_the_same_seed_gives_the_same_and_rows_may_be_few() -> None:
    rows, _ = streets(images=3)
    one, two = (merge(rows, 4, FEW, seed=7) for _ in range(2))
    assert one.own.equal(two.own)
    assert one.whole is None  # parts of three images say nothing
    assert one.facts()["agreement"] == {}
    many, _ = streets(images=24)  # images enough, but a part has 104 regions
    assert merge(many, 60, FEW).whole is None
    with pytest.raises(TesseraError, match=r"39 regions cannot make 40 clusters: lower clusters\.k or add images"):
        merge(rows, 40)


def test_parts_of_a_folder_that_show_the_same_agree() -> None:
    rows, _ = streets(images=40)
    found = merge(rows, 5, FEW)
    assert found.groups < 5
    assert set(found.agreement) == {found.groups, 5}
    whole = found.whole
    assert whole is not None
    codes = torch.randn(len(rows), 8, generator=torch.Generator().manual_seed(0))
    noise = RegionRows(codes, F.normalize(codes, dim=1), rows.texture, rows.image, rows.weight)
    of_noise = merge(noise, 5, FEW).whole
    assert of_noise is not None
    assert whole > of_noise + 0.2


def test_agreement_is_adjusted_for_chance_as_counted_pair_by_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randint(0, k, (60,), generator=generator) for k in (3, 4))
    pairs = list(combinations(range(60), 2))
    one = np.array([bool(left[i] == left[j]) for i, j in pairs])
    other = np.array([bool(right[i] == right[j]) for i, j in pairs])
    expected = one.sum() * other.sum() / len(pairs)
    slow = ((one & other).sum() - expected) / ((one.sum() + other.sum()) / 2 - expected)
    # Shares of the weight also count a region with itself, n of n² pairs.
    n, (a, b, ab) = 60, (float(sum(pairs_of)) for pairs_of in (one, other, one & other))
    shares = [(2 * count + n) / n**2 for count in (a, b, ab)]
    by_shares = (shares[2] - shares[0] * shares[1]) / ((shares[0] + shares[1]) / 2 - shares[0] * shares[1])
    assert adjusted_rand(left, right, torch.ones(n)) == pytest.approx(by_shares)
    assert adjusted_rand(left, right, torch.ones(n)) == pytest.approx(slow, abs=4 / n)
    halves = adjusted_rand(left.repeat(2), right.repeat(2), torch.full((2 * n,), 0.5))
    assert halves == pytest.approx(by_shares)  # a region in two halves is one region
    assert adjusted_rand(left, (left + 1) % 3, torch.ones(60)) == pytest.approx(1)
    assert adjusted_rand(left, torch.zeros_like(left), torch.ones(60)) == pytest.approx(0)


def test_as_good_is_within_one_standard_error_of_the_best() -> None:
    plain = torch.tensor([0.6, 0.7, 0.8])  # .7 ± .058
    assert merging.as_good(plain, plain)
    assert merging.as_good(torch.tensor([0.2, 0.9, 0.85]), plain)
    assert not merging.as_good(torch.tensor([0.1, 0.9, 0.85]), plain)  # its own spread excuses nothing
    assert not merging.as_good(torch.tensor([0.4]), torch.tensor([0.5]))


def test_the_draw_most_like_the_others_is_taken() -> None:
    class Draw:
        def __init__(self, labels: list[int]) -> None:
            self.own = torch.tensor(labels)

        def cut(self, groups: int) -> Tensor:
            return self.own

        def labels(self, own: Tensor, rows: RegionRows) -> Tensor:
            return own

    rows, _ = streets(images=1)
    halves, nearly, other = [0] * 6 + [1] * 7, [0] * 7 + [1] * 6, [0, 1] * 6 + [0]
    draws = [Draw(other), Draw(nearly), Draw(halves), Draw(nearly)]
    assert merging.most_typical(draws, rows, 2) is draws[1]  # type: ignore[arg-type, comparison-overlap]
    assert merging.most_typical(draws[:2], rows, 2) is draws[0]  # type: ignore[arg-type, comparison-overlap]


def test_the_fewest_groups_of_any_draw_are_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = streets(images=40)
    counts = iter([5, 3, 4])
    monkeypatch.setattr(merging._Pieces, "alike_groups", lambda self: next(counts))
    found = merge(rows, 6, FEW.model_copy(update={"draws": 3}), seed=1)
    assert min(found.agreement) == 3
    assert found.groups == max({*found.agreement} - {6}, default=6)


def test_average_linkage_is_scipys_where_weights_are_equal() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(12, 3, generator=generator).double()
    apart = torch.cdist(points, points)
    joins = average_linkage(apart, [1.0] * 12)
    theirs = average(squareform(apart.numpy(), checks=False))
    assert [join.height for join in joins] == pytest.approx(theirs[:, 2].tolist())
    own = np.arange(12)
    for join in joins[:8]:
        own[own == join.gone] = join.into
    cut = cut_tree(theirs, 4)[:, 0]
    assert len(set(zip(own.tolist(), cut.tolist(), strict=True))) == 4
