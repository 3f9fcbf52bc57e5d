"""Centroids of soft labels, where means do not do."""

import torch
from torch.nn import functional as F

from training.discovery.classifier import fit_centroids


def test_a_cluster_of_two_looks_is_named_though_its_mean_is_one_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    looks = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0.7, 0.7, 0.4, 0], [0, 0, 0, 1.0]])
    look = torch.tensor([0, 0, 0, 0, 0, 1, 2, 3]).repeat(50)  # the one look is rare: the mean is the other's
    codes = looks[look] + 0.05 * torch.randn(400, 4, generator=generator)
    wanted = torch.tensor([0, 0, 1, 2])[look]  # the first two looks are one cluster
    soft = F.one_hot(wanted).float()

    def named(centroids: torch.Tensor) -> float:
        return float(((F.normalize(codes, dim=1) @ centroids.T).argmax(1) == wanted).float().mean())

    means = F.normalize(soft.T @ F.normalize(codes, dim=1), dim=1)
    found = fit_centroids(codes, soft, torch.ones(400))
    assert found.norm(dim=1).allclose(torch.ones(3))
    assert named(means) < 0.9
    assert named(found) > 0.99
    assert found.equal(fit_centroids(codes, soft, torch.ones(400)))


def test_weights_decide_where_labels_quarrel() -> None:
    codes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    soft = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    for weight, winner in ((torch.tensor([9.0, 1.0, 5.0]), 0), (torch.tensor([1.0, 9.0, 5.0]), 1)):
        assert int((codes[0] @ fit_centroids(codes, soft, weight).T).argmax()) == winner
