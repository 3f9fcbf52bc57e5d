"""Clusters to a hierarchy: which become one when fewer are wanted.

Knows nothing of networks, images or files, nor of what makes two clusters alike.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.manifest import Merge, TreeBy
from models.types import Array


class Tree(NamedTuple):
    """A hierarchy, and what its heights are: see models.manifest.Manifest."""

    merges: list[Merge]
    by: TreeBy


def tree_of(apart: Array | None, centroids: Tensor, fractions: Sequence[float]) -> Tree:
    """The hierarchy by what belongs together; where nothing is known of that, by the centroids.

    apart      float64 [K, K] of training/discovery/belonging.py, or None
    centroids  float [K, D];  fractions  share of the pixels of each cluster
    """
    if apart is None:
        return Tree(hierarchy(cosine_distance(centroids), fractions), "centroids")
    # Clusters at 0 from all others were not seen: with weight they would draw what they join to the rest.
    weights = [share if row.any() else 0.0 for row, share in zip(apart, fractions, strict=True)]
    return Tree(hierarchy(torch.from_numpy(apart), weights), "belonging")


def hierarchy(apart: Tensor, fractions: Sequence[float]) -> list[Merge]:
    """Which clusters become one when fewer are wanted, from K - 1 down to 2.

    apart      float [K, K], symmetric: how far apart every two are, in whatever measure; the diagonal is not looked at
    fractions  share of the pixels of each cluster; the larger of two gives its id to both

    A merge's height is the mean of `apart` over the pairs that it joins, in which a pair weighs as much as its pixels:
    heights lie within the range of `apart`, and never fall.

    Source: average linkage (UPGMA; Sokal and Michener, 1958), weighted.
    """
    apart = apart.detach().double().cpu().clone()
    most = float(apart.max()) if apart.numel() else 0.0
    apart.fill_diagonal_(torch.inf)
    # An unused cluster weighs next to nothing, not nothing: two of them still have a mean distance.
    weight = [max(float(f), 1e-12) for f in fractions]
    merges: list[Merge] = []
    for left in range(len(apart) - 1, 1, -1):
        at = int(apart.argmin())
        a, b = sorted(divmod(at, len(apart)))
        into, gone = (a, b) if weight[a] >= weight[b] else (b, a)
        # A mean may leave the range of what it is the mean of by the last bit.
        height = min(most, max(float(apart[a, b]), merges[-1].height if merges else -torch.inf))
        merges.append(Merge(k=left, merge=(a, b), into=into, height=height))
        total = weight[a] + weight[b]
        mean = (weight[into] * apart[into] + weight[gone] * apart[gone]) / total
        apart[into], apart[:, into] = mean, mean
        apart[gone], apart[:, gone] = torch.inf, torch.inf
        apart[into, into] = torch.inf
        weight[into] = total
    return merges


def cosine_distance(centroids: Tensor) -> Tensor:
    """1 - cosine of every two, float64 [K, K], of centroids float [K, D] of any length: what there is without images.

    It ranks what the network compares codes with, which is no measure of what belongs together: centroids of a network
    that was taught to tell clusters apart are nearly orthogonal.
    """
    unit = F.normalize(centroids.detach().double().cpu(), dim=1)
    return 1 - unit @ unit.T
