"""The cluster probe learns, and the code does not notice."""

import torch
from torch.nn import functional as F

from training.losses.probes import ClusterProbe


def test_no_gradient_reaches_the_code():
    code = torch.randn(2, 6, 4, 4, requires_grad=True)
    probe = ClusterProbe(5, 6)
    probe.loss(code).backward()
    assert code.grad is None
    assert probe.centers.grad is not None


def test_centroids_have_length_one():
    probe = ClusterProbe(5, 6)
    probe.centers.data *= torch.tensor([1e-3, 1, 10, 100, 1e4])[:, None]
    assert torch.allclose(probe.centroids().norm(dim=1), torch.ones(5), atol=1e-6)


def test_learns_the_directions():
    torch.manual_seed(0)
    wanted = F.normalize(torch.eye(6)[:3], dim=1)
    code = (wanted[torch.arange(48) % 3] + 0.05 * torch.randn(48, 6)).T.reshape(1, 6, 6, 8)
    probe = ClusterProbe(3, 6)
    probe.centers.data = wanted + 0.5 * torch.randn(3, 6)
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = probe.loss(code)
        loss.backward()
        optimizer.step()
    assert float((probe.centroids() @ wanted.T).max(1).values.min()) > 0.98
    assert loss.item() < -0.95
