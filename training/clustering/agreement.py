"""How alike two clusterings are, and those of different seeds.

Knows nothing of networks, images or files: tensors in, numbers out.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from training.clustering.kmeans import kmeans


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


def stability(points: Tensor, k: int, *, seeds: Sequence[int]) -> float:
    """Mean agreement of k-means of the points with different seeds: 1 the same, 0 as by chance."""
    runs = [kmeans(points, k, seed=seed, restarts=1, metric="cosine")[1] for seed in seeds]
    found = [agreement(a, b) for a, b in combinations(runs, 2)]
    return sum(found) / max(1, len(found))
