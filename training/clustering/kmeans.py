"""Points → clusters.

Knows nothing of networks, images or files: tensors in, tensors out. Everything is decided by the seed,
on every device: sums are matrix products, never atomic additions.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import TesseraError

Metric = Literal["cosine", "euclidean"]

_ROWS = 2**16  # points compared at once: 64 Ki × 255 clusters is 67 MB
_SEEDING = 2**17  # k-means++ draws from at most this many points; more change nothing but the time


def kmeans(
    points: Tensor,
    k: int,
    *,
    seed: int = 0,
    restarts: int = 3,
    iterations: int = 50,
    metric: Metric = "cosine",
    init: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Centroids float32 [K, D] and the cluster int64 [n] of every point; the best of several restarts.

    points  float [n, D]; for `cosine` only their direction counts, and centroids have length 1
    init    float [K, D], where to start instead of k-means++; then one run is enough

    Raises TesseraError when there are fewer points than clusters.

    Source: Lloyd's algorithm with k-means++ seeding; spherical for `cosine` (Dhillon and Modha, 2001).
    """
    if len(points) < k:
        raise TesseraError(f"{len(points)} points cannot make {k} clusters: lower clusters.k or add images")
    device, points = points.device, _able(points.float())
    if metric == "cosine":
        points = F.normalize(points, dim=1)
    best: tuple[float, Tensor, Tensor] | None = None
    for restart in range(1 if init is not None else max(1, restarts)):
        generator = torch.Generator().manual_seed(seed + 7919 * restart)
        start = init.to(points) if init is not None else _seeds(points, k, generator)
        centroids = _lloyd(points, start, iterations, metric)
        distances, labels = nearest(points, centroids)
        cost = float(distances.double().sum())
        if best is None or cost < best[0] * (1 - 1e-6):  # a tie up to rounding goes to the earlier one
            best = cost, centroids, labels
    assert best is not None
    return best[1].to(device), best[2].to(device)


def nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Squared Euclidean distance float [n] to the nearest centroid, and which one it is: int64 [n].

    points  float [n, D];  centroids  float [K, D]
    """
    distances = torch.empty(len(points), device=points.device)
    labels = torch.empty(len(points), dtype=torch.int64, device=points.device)
    half = centroids.square().sum(1) / 2
    for rows in _chunks(len(points)):
        block = points[rows]
        score, labels[rows] = (block @ centroids.T - half).max(1)
        distances[rows] = (block.square().sum(1) - 2 * score).clamp_(min=0)
    return distances, labels


def _closest(points: Tensor, centroids: Tensor) -> Tensor:
    """Which centroid is nearest to every point, int64 [n]: `nearest` without distances, in a third of its time."""
    half = centroids.square().sum(1) / 2
    return torch.cat([(points[rows] @ centroids.T - half).max(1).indices for rows in _chunks(len(points))])


def _seeds(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next seed is drawn with odds that grow with its squared distance to the others."""
    if len(points) > _SEEDING:
        some = torch.randperm(len(points), generator=generator)[:_SEEDING].to(points.device)
        points = points[some]
    even = torch.ones(len(points), dtype=torch.float64, device=points.device)
    odds = even
    seeds = points.new_empty(k, points.shape[1])
    distances = torch.full((len(points),), torch.inf, device=points.device)
    for i in range(k):
        if not float(odds.sum()) > 0:  # fewer distinct points than clusters: repeat some
            odds = even
        line = odds.cumsum(0)
        at = torch.rand(1, generator=generator, dtype=torch.float64).to(line.device) * line[-1]
        seeds[i] = points[torch.searchsorted(line, at, right=True).clamp_(max=len(points) - 1)[0]]
        distances = torch.minimum(distances, (points - seeds[i]).square().sum(1))
        odds = distances.double()
    return seeds


def _lloyd(points: Tensor, centroids: Tensor, iterations: int, metric: Metric) -> Tensor:
    previous: Tensor | None = None
    for _ in range(iterations):
        labels, before = _closest(points, centroids), centroids
        if previous is not None and torch.equal(labels, previous):
            break
        previous = labels
        sums, masses = cluster_sums(points, labels, len(centroids))
        empty = masses <= 0
        centroids = torch.where(empty[:, None], centroids, sums / masses.clamp(min=1e-12)[:, None])
        distances = nearest(points, before)[0] if empty.any() else masses
        for k in empty.nonzero()[:, 0].tolist():  # nobody is nearest to it: it starts again where the fit is worst
            centroids[k] = points[distances.argmax()]
            distances = torch.minimum(distances, (points - centroids[k]).square().sum(1))
        if metric == "cosine":
            centroids = F.normalize(centroids, dim=1)
    return centroids


def cluster_sums(points: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sum float [K, D] of the points of every cluster, and how many it has: float [K].

    points  float [n, D];  labels  int64 [n]
    """
    device, points, labels = points.device, _able(points), _able(labels)
    sums = points.new_zeros(k, points.shape[1], dtype=torch.float64)
    masses = points.new_zeros(k, dtype=torch.float64)
    for rows in _chunks(len(points)):
        member = points.new_zeros(len(labels[rows]), k).scatter_(1, labels[rows, None], 1)
        sums += member.T @ points[rows]
        masses += member.sum(0)
    return sums.to(points).to(device), masses.to(points).to(device)


def _able(points: Tensor) -> Tensor:
    """The points where there are doubles: Apple's GPUs know none, so theirs are clustered by the CPU."""
    return points.cpu() if points.device.type == "mps" else points


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS))
