"""What PiCIE minimizes: every view's codes against its own clusters, and against the other view's.

Knows nothing of images, networks or epochs: codes, means and labels in, numbers out.

Source: PiCIE: Unsupervised Semantic Segmentation using Invariance and Equivariance in Clustering (arXiv:2103.17070).
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from training import distributed
from training.clustering.kmeans import nearest
from training.data.label_maps import IGNORED

ClassWeights = Literal["proportional", "none", "inverse"]


def label(code: Tensor, means: Tensor) -> Tensor:
    """The nearest mean of every pixel, by Euclidean distance: code [B, D, h, w], means [K, D] → int64 [B, h, w]."""
    flat = code.permute(0, 2, 3, 1)
    return nearest(flat.reshape(-1, flat.shape[-1]), means)[1].reshape(flat.shape[:-1])


def class_weights(counts: Tensor, how: ClassWeights) -> Tensor:
    """Weights float32 [..., K] for the cross-entropy from pixels per cluster [..., K]. An empty cluster's is 0.

    proportional  the cluster's share of the pixels, as the published code
    inverse       one over it: every cluster weighs the same in all
    """
    share = (counts / counts.sum(-1, keepdim=True)).float()
    if how == "none":
        return torch.ones_like(share)
    return share if how == "proportional" else torch.where(share > 0, 1 / share.clamp(min=1e-12), 0.0)


def level_shares(ks: list[int]) -> list[float]:
    """How much each clustering counts: the finer, the less, by the logarithm of its size. Sums to 1.

    Source: PiCIE §4.2, the auxiliary over-clustering of PiCIE+H.
    """
    if len(ks) == 1:
        return [1.0]
    logs = [math.log(k) for k in reversed(ks)]
    return [value / sum(logs) for value in logs]


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Of logits [B, K, h, w] and labels [B, h, w], weighted by cluster [K]; 0 where all labels are IGNORED.

    Of several processes, what averages to the mean over the pixels of all of them.
    """
    portion = distributed.portion(weights[labels[labels != IGNORED]].sum()) if distributed.world() > 1 else 1.0
    if bool((labels == IGNORED).all()):
        return 0 * logits.sum()
    return portion * F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORED)


def view_losses(
    codes: list[Tensor], labels: tuple[Tensor, ...], means: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """(within, across): each view's codes against its own clusters, and against the other's.

    codes    two float [B, D, h, w], length 1
    labels   two int64 [B, h, w], IGNORED where no data is
    means    float [2, K, D];  weights  float [2, K]

    Logits are plain dot products with the means, whose lengths are their own; no temperature.
    Source: PiCIE §3.2, eq. 5 and 6.
    """

    def against(code: Tensor, view: int) -> Tensor:
        logits = torch.einsum("bdhw,kd->bkhw", code, means[view])
        return cross_entropy(logits, labels[view], weights[view])

    within = (against(codes[0], 0) + against(codes[1], 1)) / 2
    across = (against(codes[0], 1) + against(codes[1], 0)) / 2
    return within, across
