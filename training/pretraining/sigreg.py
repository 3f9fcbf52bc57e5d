"""SIGReg of regions: the views of a region agree, and all regions together look like draws of one Gaussian.

Knows nothing of networks, images or steps: codes in, a scalar out.

Nothing is pushed apart, no view is the teacher of another: that the codes are spread like an isotropic Gaussian is
what keeps them from becoming one. It is asked of their projections on random directions.

Source: Balestriero and LeCun, LeJEPA (arXiv:2511.08544), from its text.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from training.config.recipe import Section
from training.pretraining.seen_regions import SeenRegions

_FEWEST = 2  # regions of a view that have a distribution


class SigregOptions(Section):
    """As the paper recommends."""

    weight: float = Field(default=0.05, ge=0, le=1, description="λ: of the Gaussian; 1 - λ of the views' agreement")
    directions: int = Field(default=1024, ge=1, description="drawn anew every step")
    points: int = Field(default=17, ge=3, description="at which the characteristic functions are compared")
    reach: float = Field(default=5.0, gt=0, description="of these points, either way")


class Sigreg(nn.Module):
    """It has no state: the directions are a function of seed and step."""

    def __init__(self, options: SigregOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, regions: SeenRegions) -> Tensor:
        """(1 - λ) × invariance + λ × mean of the views' sketched Epps–Pulley statistics."""
        directions = draw_directions(self.options.directions, regions.codes.shape[2], regions.draw)
        directions = directions.to(regions.codes)
        options = self.options
        statistics = [
            epps_pulley(codes[seen] @ directions.T, points=options.points, reach=options.reach).mean()
            for codes, seen in zip(regions.codes, regions.seen, strict=True)
            if int(seen.sum()) >= _FEWEST
        ]
        gaussian = torch.stack(statistics).mean() if statistics else 0 * regions.codes.sum()
        agreement = invariance(regions.codes, regions.seen, larger=regions.larger)
        return (1 - options.weight) * agreement + options.weight * gaussian

    def after_step(self) -> None:
        """Nothing to keep in order."""


def invariance(codes: Tensor, seen: Tensor, *, larger: int) -> Tensor:
    """Mean squared distance, per channel, of a region's codes from their mean over the larger views that show it.

    codes  float [V, n, D];  seen  bool [V, n]

    Source: LeJEPA §5: the larger views' mean is what all views predict, and gradients pass through both.
    """
    shown = seen[..., None].to(codes)
    center = (codes * shown)[:larger].sum(0) / shown[:larger].sum(0).clamp(min=1)
    squared = (codes - center).square().mean(2) * seen
    return squared.sum() / seen.sum().clamp(min=1)


def epps_pulley(samples: Tensor, *, points: int = 17, reach: float = 5.0) -> Tensor:
    """How unlike draws of N(0, 1) every column is: float [M], 0 for none, of samples float [n, M].

    n ∫ |mean of exp(i t x) - exp(-t²/2)|² exp(-t²) dt, by the trapezoid rule between ±reach.

    Source: Epps and Pulley, A test for normality based on the empirical characteristic function (1983).
    """
    at = torch.linspace(0, reach, points // 2 + 1, device=samples.device, dtype=samples.dtype)
    turned = samples[..., None] * at
    # The integrand is even: twice the half from 0 on, of which `points // 2` steps are as wide as those of the whole.
    error = (turned.cos().mean(0) - torch.exp(-(at**2) / 2)).square() + turned.sin().mean(0).square()
    return len(samples) * 2 * torch.trapezoid(error * torch.exp(-(at**2)), at, dim=-1)


def draw_directions(count: int, dim: int, draw: int) -> Tensor:
    """Unit rows float32 [count, D], evenly spread over the sphere: a function of `draw`."""
    generator = torch.Generator().manual_seed(draw)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=1)
