"""Levels of a bundle's hierarchy: which cluster stands for each when fewer are wanted.

Knows nothing of images or networks.
"""

from collections.abc import Sequence

import numpy as np

from models.manifest import Merge
from models.types import Array


def level(hierarchy: Sequence[Merge], k: int, clusters: int) -> Array:
    """Which cluster stands for each one when only k are left.

    returns  uint8 [K]  representative of every id; `table[labels]` is the coarser label map

    Raises ValueError when k is not in 2..K or the hierarchy does not reach it.
    """
    if not 2 <= k <= clusters:
        raise ValueError(f"k = {k}: choose between 2 and {clusters}")
    table = np.arange(clusters, dtype=np.uint8)
    left = clusters
    for merge in hierarchy:
        if left <= k:
            break
        a, b = merge.merge
        table[(table == a) | (table == b)] = merge.into
        left = merge.k
    if left != k:
        raise ValueError(f"k = {k}: the hierarchy stops at {left}")
    return table
