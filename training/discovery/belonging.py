"""How much two clusters belong together, without a label: what a tree of them is built on.

Knows nothing of images, networks or bundles: rows of regions (region_evidence.py) in, distances of clusters out.

A network that splits the houses into four clusters was taught to tell these four apart: their centroids are as far from
one another as from the road's. What they have in common shows elsewhere. Three signs of it, each standardized over the
pairs of clusters, are averaged:

    co-association  coarser and other clusterings of the regions put both into one: with few clusters, houses are one
    links           regions of one have regions of the other, in other images, among their nearest, beyond chance
    texture         both are as rough: it keeps a smooth sky apart from the houses below it

Source of co-association: evidence accumulation (Fred and Jain, 2005); the rest is our own, found on CamVid's training
drives (docs/evaluation.md has what it is worth).
"""

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from models.types import Array
from training.clustering.kmeans import kmeans
from training.config.recipe import Section
from training.discovery.region_evidence import RegionEvidence

_ROWS = 1024  # compared with all others at once


class BelongingOptions(Section):
    """How the three signs are taken."""

    clusterings: tuple[int, ...] = Field(default=(4, 5, 6, 8, 10, 12, 15), description="their numbers of clusters")
    seeds: int = Field(default=3, ge=1, description="of each of these")
    neighbors: int = Field(default=20, ge=1, description="nearest regions of other images that each is linked to")


def distances(evidence: RegionEvidence, options: BelongingOptions | None = None, *, seed: int = 0) -> Array | None:
    """How far apart every two clusters are, float64 [K, K] in 0..1, symmetric, 0 on the diagonal.

    0    the same thing: as alike as a cluster is to itself by the same measure, on average over the clusters
    0.5  as alike as two clusters of this network are on average
    1    as far below that as the same thing is above it, or further

    So a merge above 0.5 joins what belongs together no more than any two clusters do. A cluster that is in no region is
    0 from all others: whatever it joins loses nothing; give it no weight in a linkage (`in_use`). None where fewer than
    two clusters are in any region.
    """
    options = options or BelongingOptions()
    used = in_use(evidence)
    if used.sum() < 2:
        return None
    shares = torch.from_numpy(evidence.shares[:, used]).double()
    codes = torch.from_numpy(evidence.codes)
    unit = F.normalize(codes - codes.mean(0), dim=1)
    signs = [
        coassociation(unit, shares, options, seed=seed),
        links(unit, shares, torch.from_numpy(evidence.image), options),
        texture(torch.from_numpy(evidence.texture).double(), shares),
    ]
    alike = torch.stack([standardized(sign) for sign in signs]).mean(0)
    pairs = ~torch.eye(len(alike), dtype=torch.bool)
    same = max(float(alike.diagonal().mean()), float(alike[pairs].max()))  # the anchor of 0; 0 is that of 0.5
    apart = ((same - alike) / (2 * same)).clamp(0, 1) if same > 0 else torch.full_like(alike, 0.5)
    apart = apart.fill_diagonal_(0)
    found: Array = np.zeros((len(used), len(used)))
    found[np.ix_(used, used)] = ((apart + apart.T) / 2).numpy()
    return found


def in_use(evidence: RegionEvidence) -> Array:
    """Which clusters are in any region: bool [K]."""
    return np.asarray(evidence.shares.any(axis=0))


def coassociation(unit: Tensor, shares: Tensor, options: BelongingOptions, *, seed: int) -> Tensor:
    """Chance that a region of one cluster and one of the other fall into one cluster of another clustering: [K, K].

    unit    float [R, D], codes of length 1;  shares  float64 [R, K], of every region's pixels

    The mean over k-means with several numbers of clusters and seeds; what has too few regions is left out.
    """
    of = shares / shares.sum(0)  # how a cluster's pixels are spread over the regions
    found = shares.new_zeros(shares.shape[1], shares.shape[1])
    for k in options.clusterings:
        for i in range(options.seeds if k < len(unit) else 0):
            into = F.one_hot(kmeans(unit, k, seed=seed + i, restarts=1)[1], k)
            spread = of.T @ into.double()
            found += spread @ spread.T
    return found


def links(unit: Tensor, shares: Tensor, image: Tensor, options: BelongingOptions) -> Tensor:
    """Log of how much oftener than by chance regions of one cluster are nearest to regions of the other: [K, K].

    image  int64 [R]: only neighbors in other images count; with one image there are none, and every pair has 0
    """
    count, k = len(unit), shares.shape[1]
    found, expected = shares.new_zeros(k, k), shares.new_zeros(k, k)
    total = shares.sum(0)
    for start in range(0, count, _ROWS):
        rows = slice(start, start + _ROWS)
        near = (unit[rows] @ unit.T).masked_fill_(image[rows, None] == image, -torch.inf)
        cosine, at = near.topk(min(options.neighbors, count), dim=1)
        counts = cosine.isfinite().double()
        ends = torch.arange(len(at) + 1) * at.shape[1]
        linked = sparse.csr_array((counts.flatten().numpy(), at.flatten().numpy(), ends.numpy()), (len(at), count))
        reached = torch.from_numpy(linked @ shares.numpy())
        found += shares[rows].T @ reached
        expected += (shares[rows] * counts.sum(1, keepdim=True)).T @ (total / count).expand(len(reached), k)
    found, expected = found + found.T, expected + expected.T
    return ((found / 2 + 1) / (expected / 2 + 1)).log()


def texture(rows: Tensor, shares: Tensor) -> Tensor:
    """Minus the squared distance of the clusters' mean textures, columns standardized over the clusters: [K, K].

    rows  float64 [R, T], of every region
    """
    means = (shares / shares.sum(0)).T @ rows
    columns = means - means.mean(0)
    columns = columns / columns.square().mean(0).sqrt().clamp(min=1e-9)
    return -(columns[:, None] - columns).square().sum(2)


def standardized(sign: Tensor, pairs: Tensor | None = None) -> Tensor:
    """A sign [K, K] less its mean over pairs of clusters, in their standard deviations; 0 where all are equal.

    pairs  bool [K, K], which are counted; None: every two
    """
    counted = sign[~torch.eye(len(sign), dtype=torch.bool) if pairs is None else pairs]
    spread = counted.std(unbiased=False)
    return (sign - counted.mean()) / spread if spread > 1e-9 else torch.zeros_like(sign)
