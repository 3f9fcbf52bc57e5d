"""Pixels aligned with semantics: targets that cannot collapse, and the losses of SAN.

Knows nothing of networks or images: embeddings and assignments in, scalars out.

Of the paper only the abstract and what others tell of it were at hand: alignment, uniformity, orthogonality and
reconstruction are its words, the formulas are ours. Uniformity is what `balanced` and `orthogonality` make.

Source: Semantic Attention Network (arXiv:2211.14513), abstract; SwAV (arXiv:2006.09882) for balanced targets.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.augment import TO_YIQ

# Of luma, orange–blue and green–purple in photos; each is divided by its own, or hue would hardly count.
_SPREAD = torch.tensor([0.25, 0.08, 0.05])

_ROUNDS = 10  # of balancing: the targets no longer move


def opponent_colors(colors: Tensor) -> Tensor:
    """Lightness and two axes of hue, about −2..2, of RGB 0..1: float [B, 3, h, w] in and out."""
    axes = (TO_YIQ / _SPREAD[:, None]).to(colors)
    return torch.einsum("ij,bjhw->bihw", axes, colors - 0.45)


def batch_semantics(semantics: Tensor) -> Tensor:
    """One set of semantics for the whole batch: the images' [B, K, D] → unit rows [K, D]."""
    return F.normalize(F.normalize(semantics, dim=2).mean(0), dim=1)


def orthogonality(semantics: Tensor) -> Tensor:
    """Mean squared entry of S Sᵀ − I per row: 0 where no two semantics are alike.  semantics [K, D], unit rows"""
    eye = torch.eye(len(semantics), device=semantics.device)
    return (semantics @ semantics.T - eye).square().sum(1).mean()


@torch.no_grad()
def balanced(scores: Tensor, *, temperature: float, strength: float) -> Tensor:
    """Soft targets [n, K] for cosines [n, K], such that none of the K is wanted by all.

    strength  1 wants all K equally often; 0 is a plain softmax, which may collapse; between them a column is
              held down by that power of its mass

    Source: Sinkhorn and Knopp, as SwAV uses it; Chizat et al. (arXiv:1607.05816) for strengths below 1.
    """
    log = scores / temperature
    bias = torch.zeros_like(log[0])
    for _ in range(_ROUNDS):
        masses = (log - (log + bias).logsumexp(1, keepdim=True)).logsumexp(0)
        bias = -strength * masses
    return (log + bias).softmax(1)


def alignment(log_assigned: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of each view's assignments against the other view's targets; all float [n, K]."""
    return -((targets[1] * log_assigned[0]).sum(1).mean() + (targets[0] * log_assigned[1]).sum(1).mean()) / 2
