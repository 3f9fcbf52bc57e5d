"""SwAV of regions: which prototype a region is assigned to in one view is predicted from the others.

Knows nothing of networks, images or steps: codes in, a scalar out.

The assignments of a batch use all prototypes equally, so that not all regions become one; no region is pushed away
from another one, and two walls may share a prototype.

Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (arXiv:2006.09882).
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from training.config.recipe import Section
from training.pretraining.seen_regions import SeenRegions


class SwavOptions(Section):
    """Temperature, epsilon and iterations are the paper's, the others sized to hundreds of regions a batch."""

    prototypes: int = Field(default=64, ge=2)
    temperature: float = Field(default=0.1, gt=0)
    epsilon: float = Field(default=0.05, gt=0, description="the larger, the softer the assignments")
    iterations: int = Field(default=3, ge=1, description="of Sinkhorn–Knopp")
    queue: int = Field(default=1024, ge=0, description="codes of earlier batches, of each larger view, to balance with")
    frozen_steps: int = Field(default=12, ge=0, description="first steps in which the prototypes stay")


class Swav(nn.Module):
    """Prototypes, and a queue of earlier codes for each larger view.

    prototypes  float32 [K, D]     unit rows
    queue       float32 [L, Q, D]  unit rows, the newest first
    queued      int64   [L]        how many of them are filled: the queue counts once it is full
    steps       int64   []         steps so far
    """

    queue: Tensor
    queued: Tensor
    steps: Tensor

    def __init__(self, dim: int, options: SwavOptions, *, larger: int) -> None:
        super().__init__()
        self.options = options
        self.prototypes = nn.Parameter(F.normalize(torch.randn(options.prototypes, dim), dim=1))
        self.register_buffer("queue", torch.zeros(larger, options.queue, dim))
        self.register_buffer("queued", torch.zeros(larger, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, regions: SeenRegions) -> Tensor:
        """Cross-entropy of every view's prediction and a larger view's assignment, mean over such pairs and regions."""
        prototypes = self.prototypes if int(self.steps) >= self.options.frozen_steps else self.prototypes.detach()
        codes = F.normalize(regions.codes, dim=2)
        scores = codes @ prototypes.T
        predicted = F.log_softmax(scores / self.options.temperature, dim=2)
        total, pairs = scores.new_zeros(()), scores.new_zeros(())
        for view in range(regions.larger):
            here = regions.seen[view]
            assigned = self._assign(view, codes[view, here].detach())
            others = regions.seen[:, here].clone()
            others[view] = False
            each = -(assigned * predicted[:, here]).sum(2)
            total, pairs = total + (each * others).sum(), pairs + others.sum()
        return total / pairs.clamp(min=1)

    @torch.no_grad()
    def _assign(self, view: int, codes: Tensor) -> Tensor:
        """Shares of the prototypes, float [m, K], of unit codes [m, D], which enter the view's queue."""
        size = self.options.queue
        full = size > 0 and int(self.queued[view]) >= size
        balanced = torch.cat([codes, self.queue[view]]) if full else codes
        scores = balanced @ self.prototypes.T
        shares = sinkhorn(scores, epsilon=self.options.epsilon, iterations=self.options.iterations)
        if size and self.training:
            self.queue[view] = torch.cat([codes, self.queue[view]])[:size]
            self.queued[view] = (self.queued[view] + len(codes)).clamp(max=size)
        return shares[: len(codes)]

    @torch.no_grad()
    def after_step(self) -> None:
        """Prototypes of length 1 again."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
        self.steps += 1


def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Assignment of every row to columns that all get as much: float [m, K], rows of sum 1.

    scores  float [m, K]   cosines

    Source: Sinkhorn–Knopp (arXiv:1306.0895) as in SwAV §3.1: the matrix exp(scores / epsilon), whose columns, then
    rows, are scaled to equal sums so many times.
    """
    shares = torch.exp((scores - scores.max()) / epsilon) if len(scores) else scores
    for _ in range(iterations):
        shares = shares / shares.sum(0, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        shares = shares / shares.sum(1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
    return shares
