"""Clustering: what seeds, empty clusters and weights may not change, and the hierarchy's arithmetic."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from models.errors import TesseraError
from training.clustering.agreement import agreement, stability
from training.clustering.hierarchy import cosine_distance, hierarchy
from training.clustering.kmeans import cluster_sums, kmeans, nearest


def blobs(count: int = 5, each: int = 60, spread: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around `count` well separated directions, and which one each belongs to."""
    generator = torch.Generator().manual_seed(3)
    centers = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0][:count]
    which = torch.arange(count).repeat_interleave(each)
    return centers[which] + spread * torch.randn(count * each, 12, generator=generator) / 12**0.5, which


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_finds_the_blobs(metric):
    points, which = blobs()
    centroids, labels = kmeans(points, 5, metric=metric)
    assert agreement(labels, which) == pytest.approx(1.0)
    if metric == "cosine":
        assert torch.allclose(centroids.norm(dim=1), torch.ones(5), atol=1e-6)


def test_the_seed_decides_everything():
    points, _ = blobs(spread=1.5)
    first, again, other = (kmeans(points, 7, seed=s, restarts=1) for s in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_cosine_ignores_length():
    points, _ = blobs()
    stretched = points * torch.linspace(0.1, 9, len(points))[:, None]
    assert torch.equal(kmeans(points, 5)[1], kmeans(stretched, 5)[1])


def test_an_empty_cluster_starts_again():
    points, which = blobs(count=3)
    far = torch.full((3, 12), 50.0) + torch.arange(3)[:, None]  # nobody is nearest to two of these
    _, labels = kmeans(points, 3, metric="euclidean", init=far)
    assert agreement(labels, which) == pytest.approx(1.0)


def test_identical_points_and_too_few_points():
    centroids, labels = kmeans(torch.ones(9, 4), 5)
    assert torch.isfinite(centroids).all()
    assert len(labels) == 9
    with pytest.raises(TesseraError, match="3 points cannot make 5 clusters"):
        kmeans(torch.ones(3, 4), 5)


def test_nearest_is_the_plain_distance():
    points, _ = blobs()
    centroids = points[::61]
    distances, labels = nearest(points, centroids)
    expected = torch.cdist(points, centroids)
    assert torch.equal(labels, expected.argmin(1))
    assert torch.allclose(distances, expected.min(1).values.square(), atol=1e-5)
    sums, masses = cluster_sums(points, labels, len(centroids))
    assert torch.allclose(sums[2], points[labels == 2].sum(0), atol=1e-5)
    assert int(masses[2]) == int((labels == 2).sum())


def test_hierarchy_joins_the_nearest_and_keeps_the_larger():
    centroids = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [-1.0, 0.2]])
    merges = hierarchy(cosine_distance(centroids), [0.1, 0.4, 0.3, 0.2])
    assert [(m.k, m.merge, m.into) for m in merges] == [(3, (0, 1), 1), (2, (2, 3), 2)]
    unit = F.normalize(centroids, dim=1)
    assert merges[0].height == pytest.approx(float(1 - unit[0] @ unit[1]), abs=1e-6)
    assert all(a.height <= b.height for a, b in pairwise(merges))


def test_hierarchy_weighs_by_pixels():
    angles = torch.deg2rad(torch.tensor([0.0, 20.0, 80.0, 200.0]))
    centroids = torch.stack([angles.cos(), angles.sin()], 1)
    second = hierarchy(cosine_distance(centroids), [0.7, 0.1, 0.1, 0.1])[1]
    to = [float(1 - centroids[i] @ centroids[2]) for i in (0, 1)]
    assert second.height == pytest.approx((7 * to[0] + to[1]) / 8, abs=1e-6)


def test_hierarchy_survives_unused_and_equal_clusters():
    centroids = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    merges = hierarchy(cosine_distance(centroids), [0.0, 0.0, 1.0, 0.0])
    assert [m.k for m in merges] == [3, 2]
    assert all(m.height == pytest.approx(0, abs=1e-9) for m in merges)
    assert hierarchy(cosine_distance(centroids[:2]), [0.5, 0.5]) == []


def test_agreement_is_one_for_renamed_and_near_zero_for_unrelated():
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(4, (4000,), generator=generator)
    assert agreement(a, torch.tensor([2, 0, 3, 1])[a]) == pytest.approx(1.0)
    assert abs(agreement(a, torch.randint(6, (4000,), generator=generator))) < 0.02
    assert agreement(torch.zeros(5).long(), torch.zeros(5).long()) == 1.0


def test_stability_is_one_where_the_same_is_found_and_less_where_seeds_differ():
    points, _ = blobs(count=4)
    assert stability(points, 8, seeds=(1, 1)) == 1
    assert 0 < stability(points, 8, seeds=range(4)) < 0.9  # twice as many as there are: cut somewhere else each time
