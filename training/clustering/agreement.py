"""How alike two clusterings are, and the number of clusters on which several agree.

Knows nothing of networks, images or files: tensors in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from training.clustering.kmeans import Metric, kmeans


def agreement(a: Tensor, b: Tensor) -> float:
    """How alike two clusterings of the same points are: 1 equal, 0 as by chance. Needs no labels.

    a, b  int [n], ids from 0; the numbers of clusters may differ

    Source: adjusted Rand index (Hubert and Arabie, 1985).
    """
    width = int(b.max()) + 1
    table = torch.bincount(a.long() * width + b.long(), minlength=(int(a.max()) + 1) * width)
    table = table.reshape(-1, width).double()

    def pairs(counts: Tensor) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, in_a, in_b, every = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), pairs(table.sum())
    chance = in_a * in_b / every if every else 0.0
    most = (in_a + in_b) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


def stability(points: Tensor, k: int, *, seeds: Sequence[int], restarts: int = 1, metric: Metric = "cosine") -> float:
    """Mean agreement of k-means of the points with different seeds: 1 the same, 0 as by chance."""
    runs = [kmeans(points, k, seed=seed, restarts=restarts, metric=metric)[1] for seed in seeds]
    found = [agreement(a, b) for a, b in combinations(runs, 2)]
    return sum(found) / max(1, len(found))


def choose_k(
    points: Tensor, candidates: Sequence[int], *, seeds: int = 4, metric: Metric = "cosine"
) -> tuple[int, dict[int, float]]:
    """The number of clusters that different seeds agree on most, and the agreement of every candidate.

    points  float [n, D]; a few ten thousand are enough
    """
    found = {k: stability(points, k, seeds=range(seeds), restarts=3, metric=metric) for k in candidates}
    return max(found, key=lambda k: (found[k], k)), found
