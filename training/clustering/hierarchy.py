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


class Join(NamedTuple):
    """Two of a linkage become one: `gone` goes into `into`, of whose ids it then has one; how far apart they were."""

    into: int
    gone: int
    height: float


def hierarchy(apart: Tensor, fractions: Sequence[float]) -> list[Merge]:
    """Which clusters become one when fewer are wanted, from K - 1 down to 2.

    apart      float [K, K], symmetric: how far apart every two are, in whatever measure; the diagonal is not looked at
    fractions  share of the pixels of each cluster; the larger of two gives its id to both
    """
    joins = average_linkage(apart, fractions)[:-1]
    left = range(len(apart) - 1, 1, -1)
    return [
        Merge(k=k, merge=(min(join[:2]), max(join[:2])), into=join.into, height=join.height)
        for k, join in zip(left, joins, strict=True)
    ]


def average_linkage(apart: Tensor, weights: Sequence[float]) -> list[Join]:
    """n - 1 joins, nearest first, of n things; the heavier of two gives its id to both.

    apart  float [n, n], symmetric; the diagonal is not looked at

    A join's height is the mean of `apart` over the pairs that it joins, in which a pair weighs as the product of its
    weights: heights lie within the range of `apart`, and never fall.

    Source: average linkage (UPGMA; Sokal and Michener, 1958), weighted.
    """
    apart = apart.detach().double().cpu().clone()
    most = float(apart.max()) if apart.numel() else 0.0
    apart.fill_diagonal_(torch.inf)
    # An unused cluster weighs next to nothing, not nothing: two of them still have a mean distance.
    weight = [max(float(one), 1e-12) for one in weights]
    joins: list[Join] = []
    # The nearest of each is kept: a mean of two distances is no less than both, so few of them change by a join.
    least, nearest = apart.min(1) if len(apart) else (apart, apart)
    for _ in range(len(apart) - 1):
        first = int(least.argmin())
        a, b = sorted((first, int(nearest[first])))
        into, gone = (a, b) if weight[a] >= weight[b] else (b, a)
        # A mean may leave the range of what it is the mean of by the last bit.
        height = min(most, max(float(apart[a, b]), joins[-1].height if joins else -torch.inf))
        joins.append(Join(into, gone, height))
        total = weight[a] + weight[b]
        mean = (weight[into] * apart[into] + weight[gone] * apart[gone]) / total
        apart[into], apart[:, into] = mean, mean
        apart[gone], apart[:, gone] = torch.inf, torch.inf
        apart[into, into] = torch.inf
        weight[into] = total
        stale = (nearest == into) | (nearest == gone)
        stale[[into, gone]] = True
        least[stale], nearest[stale] = apart[stale].min(1)
    return joins


def cosine_distance(centroids: Tensor) -> Tensor:
    """1 - cosine of every two, float64 [K, K], of centroids float [K, D] of any length: what there is without images.

    It ranks what the network compares codes with, which is no measure of what belongs together: centroids of a network
    that was taught to tell clusters apart are nearly orthogonal.
    """
    unit = F.normalize(centroids.detach().double().cpu(), dim=1)
    return 1 - unit @ unit.T
