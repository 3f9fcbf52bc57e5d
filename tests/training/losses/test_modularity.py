"""Modularity: what the definitions say, by hand; centers that find communities; memory that stays small."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from training.losses.modularity import (
    affinity,
    assignment,
    draw_picks,
    modularity,
    modularity_loss,
    shared_center,
    thin,
)


def tokens(batch: int = 2, n: int = 7, dim: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, n, dim, generator=torch.Generator().manual_seed(seed))


def written_out(x: torch.Tensor, centers: torch.Tensor, temperature: float) -> torch.Tensor:
    """The loss as the formula stands, batch × centers × tokens × tokens at once."""
    excess, edges = modularity(affinity(x))
    shares = assignment(x, centers)
    delta = torch.tanh(shares[:, :, None] * shares[:, None] / temperature).amax(-1)
    return -((excess / edges) * delta).sum((1, 2)).mean()


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("k", [1, 4, 40])
def test_the_loss_and_its_gradient_are_the_formulas(temperature, k):
    x, centers = tokens(3, 19), tokens(1, k, seed=1)[0]
    ours, theirs = (centers.clone().requires_grad_() for _ in range(2))
    loss, wanted = modularity_loss(x, ours, temperature), written_out(x, theirs, temperature)
    loss.backward()
    wanted.backward()
    assert torch.allclose(loss, wanted, atol=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_the_gradient_is_scaled_with_the_loss_and_tokens_feel_none():
    x, centers = tokens().requires_grad_(), tokens(1, 3, seed=1)[0].requires_grad_()
    (once,) = torch.autograd.grad(modularity_loss(x, centers), centers)
    (thrice,) = torch.autograd.grad(3 * modularity_loss(x, centers), centers)
    assert torch.allclose(thrice, 3 * once)
    assert not torch.autograd.grad(modularity_loss(x, centers), x, allow_unused=True)[0]


def test_affinities_are_symmetric_and_none_with_itself():
    x = tokens()
    for metric in ("cosine", "euclidean"):
        found = affinity(x, metric)
        assert torch.allclose(found, found.transpose(1, 2), atol=1e-6)
        assert not found.diagonal(dim1=1, dim2=2).any()
        assert 0 <= found.min() <= found.max() <= 1 + 1e-6
    distance = (x[0, 1] - x[0, 4]).square().sum()
    assert affinity(x, "euclidean")[0, 1, 4] == pytest.approx(float(torch.exp(-distance / 5)), rel=1e-5)
    assert affinity(2 * x, "euclidean")[0, 1, 4] < affinity(x, "euclidean")[0, 1, 4]
    assert torch.allclose(affinity(2 * x), affinity(x), atol=1e-6)


def test_modularity_is_nothing_in_all():
    excess, edges = modularity(affinity(tokens()))
    assert edges.shape == (2, 1, 1)
    assert torch.allclose(excess.sum((1, 2)), torch.zeros(2), atol=1e-5)


def test_images_of_unlike_or_single_tokens_have_no_loss():
    centers = torch.eye(4, requires_grad=True)
    for x in (torch.eye(4)[None], torch.ones(2, 1, 4), torch.zeros(1, 3, 4)):
        loss = modularity_loss(x, centers)
        (slope,) = torch.autograd.grad(loss, centers)
        assert loss.item() == 0
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("n", [1, 5, 130])
def test_the_shared_center_is_the_best_of_all(n, monkeypatch):
    monkeypatch.setattr("training.losses.modularity._BLOCK", 400)
    shares = assignment(tokens(1, n), tokens(1, 9, seed=1)[0])[0]
    products = shares[:, None] * shares
    found = shared_center(shares)
    assert torch.equal(found, found.T)
    assert torch.equal(products.gather(2, found[..., None])[..., 0], products.amax(-1))


def test_centers_find_the_communities():
    """Three directions in every image, and a dozen random centers: each direction gets one of its own."""
    generator = torch.Generator().manual_seed(0)
    which = torch.randint(3, (8, 40), generator=generator)
    x = torch.eye(6)[which] + 0.1 * torch.randn(8, 40, 6, generator=generator)
    centers = torch.empty(12, 6).uniform_(-1 / 12, 1 / 12, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([centers], lr=1e-2)
    first = modularity_loss(x, centers).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = modularity_loss(x, centers)
        loss.backward()
        optimizer.step()
    assert loss.item() < first - 0.2
    found = assignment(x, centers.detach()).argmax(-1)
    used = [found[which == direction].bincount(minlength=12).argmax().item() for direction in range(3)]
    assert len(set(used)) == 3
    assert all((found[which == d] == used[d]).float().mean() > 0.99 for d in range(3))


PEAK = """
import resource, torch
from training.losses.modularity import modularity_loss
torch.set_num_threads(1)
modularity_loss(torch.randn(1, 9, 8), torch.randn(4, 8, requires_grad=True)).backward()
for batch, n, k, dim in ((4, 100, 2048, 384), (2, 1600, 27, 90)):
    x, centers = torch.randn(batch, n, dim), torch.randn(k, dim, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    modularity_loss(x, centers).backward()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_is_bounded():
    """A codebook over thinned tokens, a probe over all: with every center at once, 328 MB and 553 MB."""
    found = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout
    codebook, probe = (int(kilobytes) / 1024 for kilobytes in found.split())
    assert codebook < 100
    assert probe < 200


def test_thinning_takes_one_token_of_every_cell():
    side, cell, batch = 11, 4, 3
    x = torch.arange(side * side).repeat(batch, 1)[..., None].float()
    picks = draw_picks(batch, side, cell, torch.Generator().manual_seed(0))
    assert len(picks) == batch * 4
    few = thin(x, picks, cell)[..., 0].long()
    assert few.shape == (batch, 4)
    rows, columns = few // side, few % side
    assert torch.equal(rows // cell * 2 + columns // cell, torch.arange(4).repeat(batch, 1))
    assert torch.equal((rows % cell * cell + columns % cell).flatten(), picks)
    again = draw_picks(batch, side, cell, torch.Generator().manual_seed(0))
    assert torch.equal(picks, again)
    every = draw_picks(2000, 4, 4, torch.Generator().manual_seed(1)).bincount(minlength=16)
    assert every.min() > 80  # 125 expected


def test_cells_of_one_token_keep_all():
    x = tokens(2, 9)
    assert torch.equal(thin(x, draw_picks(2, 3, 1), 1), x)


def test_assignment_ignores_lengths():
    x, centers = tokens(), tokens(1, 3, seed=1)[0]
    found = assignment(x, centers)
    assert torch.allclose(assignment(3 * x, 0.1 * centers), found, atol=1e-6)
    assert torch.allclose(found, F.cosine_similarity(x[:, :, None], centers, dim=-1).clamp(min=0), atol=1e-6)
