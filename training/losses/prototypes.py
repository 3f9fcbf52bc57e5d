"""Cluster centers in two sets: one learns to fit the labels that the other, its moving average, gives.

Knows nothing of images or networks; codes in, cosines and a loss out.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data import validity


class Prototypes(nn.Module):
    """K directions for codes of dimension D: the student's, and the teacher's, which is their moving average.

    Called with a code float [B, D, h, w] it gives the cosines float [B, K, h, w] with the teacher's; gradients flow
    into the code alone.

    Source: SmooSeg (arXiv:2310.17874), asymmetric predictor.
    """

    teacher: Tensor

    def __init__(self, k: int, dim: int) -> None:
        super().__init__()
        drawn = F.normalize(nn.init.xavier_uniform_(torch.empty(k, dim)), dim=1)
        self.student = nn.Parameter(drawn)
        self.register_buffer("teacher", drawn.clone())

    def forward(self, code: Tensor) -> Tensor:
        return cosines(code, self.teacher)

    def loss(self, code: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
        """Cross-entropy of the student's cosines, as they are, with labels: a scalar; the code feels no gradient.

        labels  int64 [B, h, w], the teacher's;  valid  bool [B, h, w], the places that hold data; None: all of them
        """
        each = F.cross_entropy(cosines(code.detach(), self.student), labels, reduction="none")
        return validity.mean(each, valid)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """The teacher moves towards the student: μ̄ ← momentum · μ̄ + (1 − momentum) · μ."""
        self.teacher.mul_(momentum).add_(self.student, alpha=1 - momentum)

    @torch.no_grad()
    def centroids(self) -> Tensor:
        """The teacher's at length 1: float32 [K, D]."""
        return F.normalize(self.teacher, dim=1)


def cosines(code: Tensor, centers: Tensor) -> Tensor:
    """Of every pixel of a code [B, D, h, w] with every center [K, D]: [B, K, h, w]."""
    return torch.einsum("bdhw,kd->bkhw", F.normalize(code, dim=1), F.normalize(centers, dim=1))
