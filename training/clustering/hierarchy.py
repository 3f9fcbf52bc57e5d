"""Clusters to a hierarchy: which become one when fewer are wanted.

Knows nothing of networks, images or files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.manifest import Merge


def hierarchy(centroids: Tensor, fractions: Sequence[float]) -> list[Merge]:
    """Which clusters become one when fewer are wanted, from K - 1 down to 2.

    centroids  float [K, D], any length
    fractions  share of the pixels of each cluster; the larger of two gives its id to both

    Average linkage on cosine distance; a pair of clusters weighs as much as its pixels.
    """
    unit = F.normalize(centroids.detach().double().cpu(), dim=1)
    apart = 1 - unit @ unit.T
    apart.fill_diagonal_(torch.inf)
    # An unused cluster weighs next to nothing, not nothing: two of them still have a mean distance.
    weight = [max(float(f), 1e-12) for f in fractions]
    merges = []
    for left in range(len(unit) - 1, 1, -1):
        at = int(apart.argmin())
        a, b = sorted(divmod(at, len(unit)))
        into, gone = (a, b) if weight[a] >= weight[b] else (b, a)
        merges.append(Merge(k=left, merge=(a, b), into=into, height=float(apart[a, b])))
        total = weight[a] + weight[b]
        mean = (weight[into] * apart[into] + weight[gone] * apart[gone]) / total
        apart[into], apart[:, into] = mean, mean
        apart[gone], apart[:, gone] = torch.inf, torch.inf
        apart[into, into] = torch.inf
        weight[into] = total
    return merges
