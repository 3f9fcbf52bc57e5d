"""A few rows that are far apart: varied examples out of many alike ones.

Knows nothing of images or networks: numbers in, places of rows out.
"""

import numpy as np

from models.types import Array


def k_center(points: Array, count: int, *, first: int = 0) -> list[int]:
    """So many rows, or all of them, each the one that is farthest from those before it; of equals the earliest.

    points  float [n, D]; distance is Euclidean
    first   the row to begin with

    Source: the greedy 2-approximation of k-center (Gonzalez, 1985).
    """
    taken: list[int] = []
    nearest = np.full(len(points), np.inf)
    while len(taken) < min(count, len(points)):
        following = int(nearest.argmax()) if taken else first
        taken.append(following)
        nearest = np.minimum(nearest, ((points - points[following]) ** 2).sum(axis=1))
        nearest[taken] = -1.0
    return taken
