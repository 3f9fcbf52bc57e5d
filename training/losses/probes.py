"""Cluster centers learned by gradient beside a network that does not feel them.

Knows nothing of where codes come from; hands back no gradient to them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data import validity


class ClusterProbe(nn.Module):
    """K centers for codes of dimension D. Only their directions count.

    Source: STEGO (arXiv:2203.08414) §4.3.
    """

    def __init__(self, k: int, dim: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(k, dim))

    def forward(self, code: Tensor) -> Tensor:
        """Cosines float [B, K, h, w] of every pixel of a code [B, D, h, w] with every center."""
        unit = F.normalize(code.detach(), dim=1)
        return torch.einsum("bdhw,kd->bkhw", unit, F.normalize(self.centers, dim=1))

    def loss(self, code: Tensor, alpha: float | None = None, *, valid: Tensor | None = None) -> Tensor:
        """−mean over pixels of the cosine with the pixel's own center.

        alpha  None: the nearest center alone is the pixel's own; a number: all are, by softmax(alpha · cos)
        valid  bool [B, h, w], the pixels that hold data; None: all of them
        """
        similarity: Tensor = self(code)
        return -validity.mean((self.shares(similarity, alpha) * similarity).sum(1), valid)

    @staticmethod
    def shares(similarity: Tensor, alpha: float | None) -> Tensor:
        """How much each center owns each pixel: [B, K, h, w], sums to 1 over K."""
        if alpha is not None:
            return (alpha * similarity).softmax(1)
        return torch.zeros_like(similarity).scatter_(1, similarity.argmax(1, keepdim=True), 1.0)

    @torch.no_grad()
    def centroids(self) -> Tensor:
        """The centers at length 1: float32 [K, D]."""
        return F.normalize(self.centers, dim=1)
