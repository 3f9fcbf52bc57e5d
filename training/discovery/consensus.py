"""Makes one clustering of several.

Knows nothing of any method or bundle: an encoder and images in; soft labels and how far the clusterings agreed out.

A k-means answers differently for every seed and every region scale. What the runs agree on is right more
often than any of them, and their mean agreement, which needs no label, tells how far to trust a pipeline.
The mean itself is several clusterings of a whole corpus; to serve it, one network learns it (distill.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from models.errors import TesseraError
from models.nets.encoder import Encoder
from models.terminal.progress import Progress, say
from training.clustering.kmeans import kmeans
from training.config.run import Run
from training.data.regions import RegionCache
from training.discovery.cluster_codes import coded_regions
from training.features.region_codes import RegionCodes, coarse, place

IMAGES = 2000  # drawn evenly from more: their soft labels are held in memory, 0.2 MB each at 11 clusters
GRID_PX = 4  # a cell of the clusterings, as fine as the finest map of the backbones


@dataclass(frozen=True)
class Consensus:
    """What several clusterings of the same cells make together.

    soft       float32 [n, K, h, w]   share of the runs that give a cell to a cluster; sums to 1 over K, or 0: no data
    agreement  0..1, mean share of cells on which two runs agree, after matching their clusters
    """

    soft: Tensor
    agreement: float


def vote(encoder: Encoder, run: Run) -> tuple[RegionCache, Consensus]:
    """The run's images, cut into regions, and what [clusters] `runs` clusterings of these make together.

    The clusterings take the region scales in turn, each with a seed of its own.
    """
    section, seed = run.recipe.clusters, run.recipe.seed
    cache, codes = coded_regions(encoder, run, most=IMAGES)
    clusterings = []
    with Progress(run.console, "clusterings", section.runs) as progress:
        for i in range(section.runs):
            rows, how = codes.at(i % len(section.region_scales)), {"seed": seed + i, "restarts": section.restarts}
            clusterings.append(
                cluster_regions(rows, cache, section.count, grid_of(cache), position=section.position, **how)
            )
            progress.advance()
    found = consensus(clusterings, section.count)
    say(run.console, f"{section.runs} clusterings agree on {found.agreement:.1%} of the pixels")
    return cache, found


def grid_of(cache: RegionCache) -> tuple[int, int]:
    """(h, w) of the soft labels of its images."""
    height, width = cache.images.shape[1:3]
    return height // GRID_PX, width // GRID_PX


def cluster_regions(
    codes: RegionCodes,
    cache: RegionCache,
    k: int,
    grid: tuple[int, int],
    *,
    position: float,
    seed: int,
    restarts: int = 2,
) -> Tensor:
    """Cluster of every cell, by k-means of the regions of one scale, each with the same weight.

    codes    the regions of one scale, `RegionCodes.at`
    grid     (h, w) of the answer
    returns  uint8 [n, h, w]; k where no data is
    """
    scale = int(codes.scale[0])
    _, cluster = kmeans(place(codes, position, codes.codes.mean(0)), k, seed=seed, restarts=restarts)
    table = torch.zeros(len(cache.counts), int(cache.counts[:, scale].max()), dtype=torch.uint8)
    table[codes.image, codes.region] = cluster.to(torch.uint8)
    ids = coarse(cache.regions[:, scale], grid)
    found = table.gather(1, ids.flatten(1).clamp(min=0)).reshape(ids.shape)
    return found.masked_fill_(ids < 0, k)


def match(labels: Tensor, reference: Tensor) -> Tensor:
    """The cluster of the reference that each cluster of `labels` shares most with: int64 [K], one to one.

    labels     int [n, h, w], K where no data is;  reference  float [n, K, h, w], soft labels

    Source: Hungarian method (scipy's linear_sum_assignment).
    """
    k = reference.shape[1]
    shared = torch.zeros(k, k, dtype=torch.float64)
    for own, other in zip(labels, reference, strict=True):  # image by image: a corpus' one-hots are large
        shared += _one_hot(own.flatten(), k).T.double() @ other.flatten(1).T.double()
    rows, columns = linear_sum_assignment(-shared.numpy())
    found = torch.empty(k, dtype=torch.int64)
    found[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return found


def agreement(left: Tensor, right: Tensor, k: int) -> float:
    """Share of cells on which two clusterings agree once their clusters are matched: 0..1; of those that hold data."""
    n = k + 1
    table = torch.bincount(left.flatten().long() * n + right.flatten().long(), minlength=n * n).reshape(n, n)[:k, :k]
    rows, columns = linear_sum_assignment(-table.numpy())
    return float(table[rows, columns].sum() / table.sum())


def consensus(runs: Sequence[Tensor], k: int, *, passes: int = 3) -> Consensus:
    """The mean of several clusterings, each matched to it: from the most typical run, a few passes.

    runs  int [n, h, w] each, ids 0..k-1 of the same cells, k where no data is
    """
    if not runs:
        raise TesseraError("a consensus needs at least one clustering: set clusters.runs to 1 or more")
    if len({run.shape for run in runs}) > 1:
        raise TesseraError("the clusterings are of different grids: cluster all of them at one size")
    pairs = torch.eye(len(runs), dtype=torch.float64)
    for i, j in combinations(range(len(runs)), 2):
        pairs[i, j] = pairs[j, i] = agreement(runs[i], runs[j], k)
    mean = _one_hot(runs[int(pairs.sum(1).argmax())], k).movedim(-1, 1)
    for _ in range(passes):
        total = torch.zeros_like(mean)
        for run in runs:
            renamed = torch.cat([match(run, mean), torch.tensor([k])])
            total += _one_hot(renamed[run.long()], k).movedim(-1, 1)
        mean = total / len(runs)
    others = len(runs) * (len(runs) - 1)
    return Consensus(mean, float((pairs.sum() - len(runs)) / others) if others else 1.0)


def _one_hot(labels: Tensor, k: int) -> Tensor:
    """Labels [...] as float [..., k]; 0 everywhere for the label k, which means that no data is there."""
    return F.one_hot(labels.long(), k + 1)[..., :k].float()
