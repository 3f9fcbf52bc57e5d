"""SwAV of regions: balanced assignments, what is predicted from what, the queue."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.types import Array
from training.pretraining.seen_regions import SeenRegions
from training.pretraining.swav import Swav, SwavOptions, sinkhorn


def slow_sinkhorn(scores: Array, epsilon: float, iterations: int) -> Array:
    """Entry by entry, in float64, to the sums that the paper asks: 1/K of a column, 1/m of a row; then times m."""
    m, k = scores.shape
    q = np.array([[np.exp(scores[i, j] / epsilon) for j in range(k)] for i in range(m)])
    for _ in range(iterations):
        for j in range(k):
            total = sum(q[i, j] for i in range(m))
            for i in range(m):
                q[i, j] /= total * k
        for i in range(m):
            total = sum(q[i, j] for j in range(k))
            for j in range(k):
                q[i, j] /= total * m
    return q * m


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_is_that_of_a_slow_loop(iterations: int) -> None:
    scores = np.random.default_rng(0).uniform(-1, 1, (9, 4))
    found = sinkhorn(torch.from_numpy(scores), epsilon=0.05, iterations=iterations)
    np.testing.assert_allclose(found.numpy(), slow_sinkhorn(scores, 0.05, iterations), rtol=1e-9)
    single = sinkhorn(torch.from_numpy(scores).float(), epsilon=0.05, iterations=iterations)
    np.testing.assert_allclose(single.numpy(), found.numpy(), atol=1e-5)


def test_every_prototype_gets_as_much_and_every_row_gives_one() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).uniform(-0.3, 0.3, (40, 5)))
    shares = sinkhorn(scores, epsilon=0.05, iterations=200)
    torch.testing.assert_close(shares.sum(1), torch.ones(40).double())
    torch.testing.assert_close(shares.sum(0), torch.full((5,), 8.0).double(), atol=1e-4, rtol=0)


def test_what_lies_far_from_all_prototypes_is_no_division_by_zero() -> None:
    shares = sinkhorn(torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]]), epsilon=0.005, iterations=3)
    assert shares.isfinite().all()
    assert sinkhorn(torch.empty(0, 4), epsilon=0.05, iterations=3).shape == (0, 4)


def regions(codes: Tensor, seen: Tensor | None = None) -> SeenRegions:
    shown = torch.ones(codes.shape[:2], dtype=torch.bool) if seen is None else seen
    return SeenRegions(codes, shown, torch.full((codes.shape[1],), -1), 2, 0)


def swav(dim: int = 8, **given: int) -> Swav:
    torch.manual_seed(0)
    return Swav(dim, SwavOptions(prototypes=5, **{"queue": 0, "frozen_steps": 0} | given), larger=2)


def test_the_loss_is_that_of_a_slow_loop() -> None:
    model, codes = swav(), torch.randn(4, 7, 8)
    seen = torch.rand(4, 7) < 0.7
    prototypes = F.normalize(model.prototypes.detach(), dim=1).double().numpy()
    unit = F.normalize(codes, dim=2).double().numpy()
    terms = []
    for view in range(2):
        here = [i for i in range(7) if seen[view, i]]
        shares = slow_sinkhorn(unit[view, here] @ prototypes.T, 0.05, 3)
        for row, i in enumerate(here):
            for other in range(4):
                if other != view and seen[other, i]:
                    scores = unit[other, i] @ prototypes.T / 0.1
                    terms.append(-(shares[row] * (scores - np.log(np.exp(scores).sum()))).sum())
    assert float(model(regions(codes, seen)).detach()) == pytest.approx(np.mean(terms), rel=1e-4)


def test_a_step_down_brings_predictions_to_the_others_assignment() -> None:
    """The gradient reaches what is predicted from, and not what is assigned; views that show nothing get none."""
    model = swav()
    codes = torch.randn(3, 6, 8, requires_grad=True)
    seen = torch.tensor([[True] * 6, [True] * 6, [False] * 6])
    before = model(regions(codes, seen))
    (slope,) = torch.autograd.grad(before, codes)
    assert slope[2].abs().max() == 0
    with torch.no_grad():
        after = model(regions(codes - 0.1 * slope, seen))
    assert after < before
    only = torch.tensor([[True] * 6, [False] * 6, [True] * 6])  # assigned in the first, predicted from the third
    (slope,) = torch.autograd.grad(model(regions(codes, only)), codes)
    assert slope[0].abs().max() == 0 < slope[2].abs().max()


def test_prototypes_rest_at_first_and_stay_of_length_one() -> None:
    model, codes = swav(frozen_steps=1), torch.randn(2, 6, 8, requires_grad=True)
    model(regions(codes)).backward()
    assert model.prototypes.grad is None
    model.after_step()
    model(regions(codes)).backward()
    assert model.prototypes.grad is not None
    with torch.no_grad():
        model.prototypes.mul_(3)
    model.after_step()
    torch.testing.assert_close(model.prototypes.detach().norm(dim=1), torch.ones(5))


def test_the_queue_holds_the_newest_codes_and_counts_once_it_is_full() -> None:
    model, first, second = swav(queue=8), torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    assert model(regions(first)) == swav()(regions(first))
    assert model.queued.tolist() == [6, 6]
    assert model(regions(second)) == swav()(regions(second))  # balanced before its own codes enter
    newest = torch.cat([F.normalize(second[0], dim=1), F.normalize(first[0], dim=1)])[:8]
    torch.testing.assert_close(model.queue[0], newest)
    third = torch.randn(2, 6, 8)
    with_queue = model._assign(0, F.normalize(third[0], dim=1))
    scores = torch.cat([F.normalize(third[0], dim=1), newest]) @ model.prototypes.detach().T
    wanted = slow_sinkhorn(scores.double().numpy(), 0.05, 3)[:6]
    np.testing.assert_allclose(with_queue.numpy(), wanted, atol=1e-4)


def test_a_region_that_no_larger_view_shows_twice_is_no_error() -> None:
    assert swav()(regions(torch.randn(3, 4, 8), torch.zeros(3, 4, dtype=torch.bool))) == 0
