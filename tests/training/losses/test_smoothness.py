"""Smoothness: what a loop over all pairs of places gives, to float64; maps too large for their pairs to be held."""

import math

import pytest
import torch

from training.losses.smoothness import energy, moments


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b) / (a.norm() * b.norm())


def written_out(features, assigned, order, shift, valid):
    """(loss, agreement) pair by pair, as the formula stands."""
    places = [[(y, x) for y in range(3) for x in range(4) if valid[n, y, x]] for n in range(len(features))]
    close, rows = {}, {}
    for n, m in enumerate(order.tolist()):
        for i in places[n]:
            row = [cosine(features[n][:, *i], features[m][:, *j]) for j in places[m]]
            close |= {(n, i, j): w for j, w in zip(places[m], row, strict=True)}
            rows[n, i] = sum(row) / len(row)
    whole = sum(close.values()) / len(close)
    total, alike = 0.0, 0.0
    for (n, i, j), w in close.items():
        agreement = cosine(assigned[n][:, *i], assigned[order[n]][:, *j])
        total = total + (w - rows[n, i] + whole - shift) * (1 - agreement)
        alike = alike + agreement
    return total / len(close), alike / len(close)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 2, 0]])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("shift", [-0.02, 0.48])
def test_the_energy_and_its_gradient_are_those_of_all_pairs(order, gaps, shift):
    features, order = maps(3, 5, 3, 4), torch.tensor(order)
    valid = maps(3, 3, 4, seed=2) > -0.5 if gaps else torch.ones(3, 3, 4, dtype=torch.bool)
    assert valid.all() != gaps
    ours, theirs = (maps(3, 6, 3, 4, seed=1).softmax(1).requires_grad_() for _ in range(2))
    images = moments(features, ours, valid if gaps else None)
    found = energy(images, images.of(order), shift)
    loss, agreement = written_out(features, theirs, order, shift, valid)
    found.loss.backward()
    loss.backward()
    assert found.loss.item() == pytest.approx(loss.item(), abs=1e-12)
    assert found.agreement.item() == pytest.approx(agreement.item(), abs=1e-12)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)
    assert theirs.grad.abs().max() > 1e-3


def test_features_feel_nothing_and_only_directions_count():
    features, assigned = maps(2, 5, 3, 4).requires_grad_(), maps(2, 6, 3, 4, seed=1).softmax(1).requires_grad_()
    images = moments(features, assigned)
    loss = energy(images, images, 0.1).loss
    assert torch.autograd.grad(loss, features, allow_unused=True)[0] is None
    again = moments(3 * features, 0.5 * assigned)
    assert energy(again, again, 0.1).loss.item() == pytest.approx(loss.item(), abs=1e-12)


def test_one_cluster_for_everything_costs_nothing_and_the_features_own_grouping_pays():
    """Two kinds of places, half and half: W is 1 within a kind and 0 between; b lies between them."""
    kinds = (torch.arange(16).view(1, 4, 4) % 2).expand(3, 4, 4)
    features = torch.nn.functional.one_hot(kinds, 4).movedim(-1, 1).double()

    def loss(assigned: torch.Tensor) -> float:
        images = moments(features, assigned)
        return energy(images, images, 0.5).loss.item()

    assert loss(torch.ones(3, 2, 4, 4).double()) == pytest.approx(0, abs=1e-12)
    assert loss(features[:, :2]) == pytest.approx(-0.25)  # half of the pairs are of two kinds: W − b = −0.5
    assert loss(features[:, :2].flip(3).roll(1, 2)) == pytest.approx(-0.25)  # the same kinds under other names
    halves = torch.nn.functional.one_hot(torch.arange(16).view(1, 4, 4) // 8, 2).movedim(-1, 1).double()
    assert loss(halves.expand(3, 2, 4, 4)) > -0.01


def test_no_pair_is_held():
    """At 512 × 512 places a table of the pairs would take 275 GB."""
    features, assigned = torch.randn(1, 4, 512, 512), torch.randn(1, 3, 512, 512).softmax(1).requires_grad_()
    images = moments(features, assigned)
    energy(images, images, 0.1).loss.backward()
    assert math.isfinite(assigned.grad.sum().item())
