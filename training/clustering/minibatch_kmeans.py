"""k-means over more points than fit into memory, one batch at a time.

Knows nothing of where points come from.
"""

import torch
from torch import Tensor

from training.clustering.kmeans import cluster_sums, kmeans, nearest


class MiniBatchKMeans:
    """Centroids that start from the first batches and drift with every later group of them.

    Each centroid stays the mean of all points it was ever given: its step towards a group's mean is the
    group's share of those points. Means of unit vectors are shorter than 1 and are left so.

    init_batches    batches clustered together by Lloyd's algorithm at the start
    update_batches  batches per later update; an incomplete last group is left out
    init            float [K, D], where Lloyd's algorithm starts instead of k-means++

    Source: PiCIE (arXiv:2103.17070), published code.
    """

    def __init__(
        self,
        k: int,
        *,
        init_batches: int = 20,
        update_batches: int = 1,
        iterations: int = 20,
        seed: int = 0,
        init: Tensor | None = None,
    ) -> None:
        self.k, self.iterations, self.seed, self.init = k, iterations, seed, init
        self._wanted, self._later = init_batches, update_batches
        self._waiting: list[Tensor] = []
        self._centroids: Tensor | None = None
        self._counts = torch.zeros(k)
        self._losses: list[float] = []

    def add(self, points: Tensor) -> None:
        """One batch of points, float [n, D]."""
        self._waiting.append(points)
        if len(self._waiting) == self._wanted:
            self._absorb()

    def centroids(self) -> Tensor:
        """float32 [K, D], of what was added so far. Too few batches for a start count as a start."""
        if self._centroids is None:
            self._absorb()
        assert self._centroids is not None
        return self._centroids

    @property
    def loss(self) -> float:
        """Mean squared distance to the nearest centroid, averaged over start and updates."""
        return sum(self._losses) / max(1, len(self._losses))

    def _absorb(self) -> None:
        points, self._wanted = _together(self._waiting), self._later
        if self._centroids is None:
            self._centroids, labels = kmeans(
                points,
                self.k,
                seed=self.seed,
                restarts=1,
                iterations=self.iterations,
                metric="euclidean",
                init=self.init,
            )
            self._counts = torch.bincount(labels, minlength=self.k).to(points)
            self._losses.append(float(nearest(points, self._centroids)[0].mean()))
            return
        distances, labels = nearest(points, self._centroids)
        self._losses.append(float(distances.mean()))
        sums, given = cluster_sums(points, labels, self.k)
        self._counts = self._counts + given
        rate = (given / (self._counts + 1e-6))[:, None]
        means = sums / given.clamp(min=1)[:, None]
        self._centroids = torch.where(given[:, None] > 0, (1 - rate) * self._centroids + rate * means, self._centroids)


def _together(parts: list[Tensor]) -> Tensor:
    """The parts joined; each is let go of as it is copied, so that a start of 2 GB does not hold 4."""
    whole, start = parts[0].new_empty(sum(len(part) for part in parts), parts[0].shape[1]), 0
    while parts:
        part = parts.pop(0)
        whole[start : start + len(part)] = part
        start += len(part)
    return whole
