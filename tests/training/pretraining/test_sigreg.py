"""SIGReg of regions: the statistic, the views' agreement, and where a step down leads."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from training.pretraining.seen_regions import SeenRegions
from training.pretraining.sigreg import Sigreg, SigregOptions, draw_directions, epps_pulley, invariance


def integrated(samples: list[float]) -> float:
    """By adaptive quadrature over the whole line, with complex numbers."""

    def error(t: float) -> float:
        seen = sum(complex(math.cos(t * x), math.sin(t * x)) for x in samples) / len(samples)
        return abs(seen - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t)

    return len(samples) * quad(error, -np.inf, np.inf, epsabs=1e-10)[0]


@pytest.mark.parametrize(("scale", "points"), [(0.0, 17), (0.3, 17), (1.0, 17), (2.0, 33)])
def test_the_statistic_is_the_integral(scale: float, points: int) -> None:
    samples = np.random.default_rng(1).normal(0.4, 1, (12, 2)) * scale
    found = epps_pulley(torch.from_numpy(samples), points=points)
    for column in range(2):
        assert float(found[column]) == pytest.approx(integrated(samples[:, column].tolist()), rel=1e-4)


def test_the_statistic_is_its_closed_form() -> None:
    """Every cosine times a Gaussian has an integral: pairs of samples, samples and N(0, 1), N(0, 1) with itself."""
    x = np.random.default_rng(2).normal(size=30)
    pairs = math.sqrt(math.pi) * np.exp(-((x[:, None] - x[None]) ** 2) / 4).mean()
    mixed = math.sqrt(math.pi / 1.5) * np.exp(-(x**2) / 6).mean()
    wanted = 30 * (pairs - 2 * mixed + math.sqrt(math.pi / 2))
    assert float(epps_pulley(torch.from_numpy(x)[:, None], points=65)[0]) == pytest.approx(wanted, rel=1e-6)


def test_draws_of_a_gaussian_score_least() -> None:
    random = np.random.default_rng(3)
    normal = random.normal(size=(400, 1))
    others = [normal * 0.5, normal * 2, normal + 1, random.uniform(-1.73, 1.73, (400, 1)), np.sign(normal)]
    least = float(epps_pulley(torch.from_numpy(normal))[0])
    assert all(float(epps_pulley(torch.from_numpy(other))[0]) > 2 * least for other in others)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_step_down_brings_the_spread_towards_one(scale: float) -> None:
    samples = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).double() * scale
    samples.requires_grad_()
    (slope,) = torch.autograd.grad(epps_pulley(samples).sum(), samples)
    outward = float((-slope * samples.detach()).sum())  # of a step down: whether it stretches
    assert (outward > 0) == (scale < 1)


def test_a_step_down_parts_what_has_become_one() -> None:
    codes = 0.01 * torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    codes.requires_grad_()
    loss = Sigreg(SigregOptions(weight=1.0, directions=64))(all_seen(codes))
    (slope,) = torch.autograd.grad(loss, codes)
    assert float((-slope * codes.detach()).sum()) > 0


def all_seen(codes: torch.Tensor) -> SeenRegions:
    return SeenRegions(codes, torch.ones(codes.shape[:2], dtype=torch.bool), torch.full((codes.shape[1],), -1), 2, 5)


def test_views_agree_with_the_mean_of_the_larger_ones() -> None:
    codes, seen = torch.randn(4, 6, 3).double(), torch.rand(4, 6) < 0.7
    seen[0] |= ~seen[:2].any(0)
    terms = []
    for i in range(6):
        center = np.mean([codes[v, i].numpy() for v in range(2) if seen[v, i]], axis=0)
        terms += [((codes[v, i].numpy() - center) ** 2).mean() for v in range(4) if seen[v, i]]
    assert float(invariance(codes, seen, larger=2)) == pytest.approx(np.mean(terms))
    assert invariance(codes[:1].expand(4, 6, 3), seen, larger=2) < 1e-12


def test_the_loss_weighs_agreement_and_statistic_by_lambda() -> None:
    codes = torch.randn(3, 9, 4)
    regions, options = all_seen(codes), SigregOptions(weight=0.25, directions=16)
    directions = draw_directions(16, 4, 5)
    spread = torch.stack([epps_pulley(view @ directions.T).mean() for view in codes]).mean()
    wanted = 0.75 * invariance(codes, regions.seen, larger=2) + 0.25 * spread
    torch.testing.assert_close(Sigreg(options)(regions), wanted)


def test_directions_have_length_one_and_depend_on_the_draw_alone() -> None:
    first = draw_directions(5, 4, 7)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(5))
    assert torch.equal(first, draw_directions(5, 4, 7))
    assert not torch.equal(first, draw_directions(5, 4, 8))
