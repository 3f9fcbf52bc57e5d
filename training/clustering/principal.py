"""Points, a batch at a time → the directions in which they vary most.

Knows nothing of networks, images or files. Exact: sums and products of all points are kept, never the points.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from models.errors import TesseraError


def principal_directions(batches: Iterable[Tensor], k: int) -> Tensor:
    """The first k principal directions of all points, orthonormal rows by falling variance: float32 [k, C].

    batches  float [n, C] each

    A direction has no sign: each is turned so that it faces the points' mean, as it is compared with points that are
    not centered.

    Raises TesseraError where there are fewer channels than k.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for points in batches:
        points = points.float()
        count += len(points)
        total = total + points.sum(0).cpu().double()
        products = products + (points.T @ points).cpu().double()
    if not count or k > len(total):
        channels = len(total) if count else 0
        raise TesseraError(
            f"features of {channels} channels have no {k} principal directions: lower clusters.k, or take a wider"
            " backbone.name"
        )
    mean = total / count
    directions = torch.linalg.eigh(products / count - torch.outer(mean, mean)).eigenvectors.flip(1).T[:k]
    return torch.where((directions @ mean < 0)[:, None], -directions, directions).float()
