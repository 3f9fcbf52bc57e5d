"""Mini-batch k-means: centroids are means of everything they were given."""

import weakref

import torch

from training.clustering.kmeans import kmeans, nearest
from training.clustering.minibatch_kmeans import MiniBatchKMeans, _together


def two_blobs(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 4, generator=generator) * 0.1
    points[::2] += 3
    return points


def test_a_centroid_is_the_mean_of_all_it_was_given():
    batches = [two_blobs(40, seed) for seed in range(6)]
    solver = MiniBatchKMeans(2, init_batches=2, update_batches=2)
    for batch in batches:
        solver.add(batch)
    points = torch.cat(batches)
    labels = nearest(points, solver.centroids())[1]
    for k in range(2):
        assert torch.allclose(solver.centroids()[k], points[labels == k].mean(0), atol=1e-4)


def test_fewer_batches_than_wanted_still_make_a_start():
    points = two_blobs(40, 0)
    solver = MiniBatchKMeans(2, init_batches=20)
    solver.add(points)
    wanted = kmeans(points, 2, restarts=1, metric="euclidean")[0]
    assert torch.allclose(solver.centroids(), wanted, atol=1e-6)
    assert 0 < solver.loss < 0.1


def test_an_incomplete_last_group_is_left_out():
    one, other = (MiniBatchKMeans(2, init_batches=1, update_batches=2) for _ in range(2))
    for solver, count in ((one, 4), (other, 3)):
        for seed in range(count):
            solver.add(two_blobs(40, seed))
    assert torch.equal(one.centroids(), other.centroids())  # 1 + 2 + a leftover, and 1 + 2


def test_a_carried_start_keeps_the_order_of_clusters():
    points = two_blobs(40, 0)
    for order in ((0.0, 3.0), (3.0, 0.0)):
        solver = MiniBatchKMeans(2, init=torch.tensor(order)[:, None].expand(2, 4).clone())
        solver.add(points)
        assert torch.allclose(solver.centroids().mean(1), torch.tensor(order), atol=0.1)


def test_batches_are_let_go_of_while_they_are_joined():
    parts = [torch.full((n, 2), float(n)) for n in (3, 1, 4)]
    alive = [weakref.ref(part) for part in parts]
    whole = torch.cat(parts)
    joined = _together(parts)
    assert torch.equal(joined, whole)
    assert [ref() for ref in alive] == [None] * 3
