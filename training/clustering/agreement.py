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


def choose_k(
    points: Tensor, candidates: Sequence[int], *, seeds: int = 4, metric: Metric = "cosine"
) -> tuple[int, dict[int, float]]:
    """The number of clusters that different seeds agree on most, and the agreement of every candidate.

    points  float [n, D]; a few ten thousand are enough
    """
    stability = {}
    for k in candidates:
        runs = [kmeans(points, k, seed=seed, metric=metric)[1] for seed in range(seeds)]
        found = [agreement(a, b) for a, b in combinations(runs, 2)]
        stability[k] = sum(found) / max(1, len(found))
    return max(stability, key=lambda k: (stability[k], k)), stability
