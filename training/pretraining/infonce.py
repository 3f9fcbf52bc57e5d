"""InfoNCE of regions: a region is told from all others of its batch by its code in another view.

Knows nothing of networks, images or steps: codes in, a scalar out.

Source: Hénaff et al., Efficient Visual Pretraining with Contrastive Detection (arXiv:2103.10957).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.pretraining.seen_regions import SeenRegions


class InfoNce(nn.Module):
    """The mean of `contrast` over every larger view and each view after it; it has no state."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, regions: SeenRegions) -> Tensor:
        """Loss of one batch: a scalar, 0 where no two views share two regions."""
        losses = []
        for first in range(regions.larger):
            for second in range(first + 1, len(regions.codes)):
                both = (regions.seen[first] & regions.seen[second]).nonzero()[:, 0]
                if len(both) > 1:
                    left, right = regions.codes[first, both], regions.codes[second, both]
                    losses.append(contrast(left, right, regions.groups[both], temperature=self.temperature))
        return torch.stack(losses).mean() if losses else 0 * regions.codes.sum()

    def after_step(self) -> None:
        """Nothing to keep in order."""


def contrast(left: Tensor, right: Tensor, groups: Tensor | None = None, *, temperature: float = 0.1) -> Tensor:
    """Loss that is low where left[i] resembles right[i] and no other row.

    left, right  float [n, D]   the same n regions in two views
    groups       int [n]        regions of one group are not pushed apart; negative: in no group

    Source: InfoNCE (arXiv:1807.03748), both ways.
    """
    logits = F.normalize(left, dim=1) @ F.normalize(right, dim=1).T / temperature
    if groups is not None:
        alike = (groups[:, None] == groups[None]) & (groups[:, None] >= 0)
        alike.fill_diagonal_(False)
        logits = logits.masked_fill(alike, -math.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
