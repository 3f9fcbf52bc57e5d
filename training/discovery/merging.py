"""Clusters that a person would make: many small ones, merged by what belongs together.

Knows nothing of images, networks, bundles or labels: one row per region in, a soft clustering of the regions out.

k-means with K clusters cuts what is large and varied (houses, say, near and far, in sun and shade) to make clusters of
like spread, and has none left for what is small. So here k-means only makes the pieces, several times too many of them
and several times over; the pieces of all runs are joined by what belongs together (belonging.py) into groups; and of
the clusters that are still to be had the groups give away what is small and unlike the rest of its group.

Nothing of this is a number found on some folder:

    how many groups   pieces are joined while two groups are more alike than two pieces are on average; and no further
                      than parts of the folder, clustered apart, join the same: on that many groups they must agree with
                      the whole as on K clusters, but for one standard error, or fewer pieces are joined
    who gives         the group with the most pixels, divided by what it has given
    what              of the branches below its root that most runs know, and that have an eighth to a quarter of the
                      pixels of one cluster in K, the one least like the rest of the group

A region is in the clusters that its pieces are in, one vote for each run: no clusterings are matched to one another.
All of this is drawn five times: the fewest groups of any draw are tried first, parts and whole compared over all of
them, and the draw taken whose groups are most like those of the others.

Source: evidence accumulation (Fred and Jain, 2005) for joining what several runs made; one standard error: Breiman et
al., Classification and Regression Trees (1984); the rest is our own (docs/training.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from models.errors import TesseraError
from training.clustering.hierarchy import average_linkage
from training.clustering.kmeans import kmeans, nearest
from training.config.recipe import Section
from training.discovery import belonging
from training.discovery.belonging import BelongingOptions

_SMALLEST, _LARGEST = 1 / 8, 1 / 4  # of the pixels of one cluster in K, that a group may give
_PART_IMAGES = 8  # fewer in a part of the folder say nothing of it


class MergeOptions(Section):
    """How many pieces are made."""

    runs: int = Field(default=10, ge=1, description="of k-means, whose pieces are joined")
    pieces: int = Field(default=4, ge=1, description="of each run, for each cluster that is wanted")
    least_pieces: int = Field(default=48, ge=2, description="of each run; with few, unlike things share a piece")
    regions_each: int = Field(default=32, ge=1, description="on average in a piece, or there are fewer pieces")
    most_pieces: int = Field(default=240, ge=2, description="of each run, unless more clusters are wanted")
    tries: int = Field(default=16, ge=1, description="numbers of groups below K at most, evenly spaced")
    draws: int = Field(default=5, ge=1, description="of all of this, of which the most typical is taken")
    parts: int = Field(default=3, ge=2, description="of the folder, that are clustered apart")


@dataclass(frozen=True)
class RegionRows:
    """What is clustered: R regions of N images, all of one folder.

    points   float32 [R, P]  what k-means makes pieces of, by cosine: the code, and its place where that counts
    code     float32 [R, D]  of length 1, without place: what is alike
    texture  float [R, T]    how rough a region is, see region_evidence.RegionEvidence
    image    int64 [R]       0..N-1, ascending, which image it is of
    weight   float [R]       pixels of the region
    """

    points: Tensor
    code: Tensor
    texture: Tensor
    image: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def where(self, keep: Tensor) -> "RegionRows":
        """The rows that a mask or an index [R] picks."""
        return RegionRows(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Merged:
    """A soft clustering, and how it was come by.

    own        int64 [runs, pieces]     the cluster of every piece, 0..K-1
    centroids  float32 [runs, pieces, P] of the pieces, of length 1
    groups     how many there were before the small ones were taken out
    agreement  by number of groups, of those that were tried and of K: how far parts of the folder agree with the whole,
               adjusted for chance (1: entirely, 0: as chance would); empty where the folder is too small for parts
    error      one standard error of that on K, by which agreement on fewer groups may be less
    whole      the same of the clusters that came of it; None where there are no parts
    """

    own: Tensor
    centroids: Tensor
    groups: int
    agreement: dict[int, float]
    error: float
    whole: float | None

    @property
    def clusters(self) -> int:
        """K."""
        return int(self.own.max()) + 1

    def soft(self, points: Tensor) -> Tensor:
        """Share of the runs that put each region into each cluster: float32 [R, K], rows sum to 1, of float [R, P]."""
        points = F.normalize(points.float(), dim=1)
        votes = torch.zeros(len(points), self.clusters)
        for own, centroids in zip(self.own, self.centroids, strict=True):
            votes += F.one_hot(own[nearest(points, centroids)[1]], self.clusters)
        return votes / len(self.own)

    def facts(self) -> dict[str, Any]:
        """For the report."""
        agreement = {str(k): round(value, 4) for k, value in self.agreement.items()}
        whole = None if self.whole is None else round(self.whole, 4)
        error = round(self.error, 4)
        return {
            "groups": self.groups, "agreement": agreement, "error": error, "whole": whole, "pieces": self.own.shape[1]
        }  # fmt: skip


def merge(rows: RegionRows, k: int, options: MergeOptions | None = None, *, seed: int = 0) -> Merged:
    """K clusters of regions, each a union of pieces.

    Raises TesseraError where there are fewer regions than clusters.
    """
    options = options or MergeOptions()
    if len(rows) < k:
        raise TesseraError(f"{len(rows)} regions cannot make {k} clusters: lower clusters.k or add images")
    draws = [_Pieces(rows, k, options, seed + 1009 * i) for i in range(options.draws)]
    fewer = options.model_copy(update={"runs": (options.runs + 1) // 2})  # a part has fewer regions to make pieces of
    parts = _parts(rows, options.parts, k)
    if not parts:
        pieces = most_typical(draws, rows, k)
        return Merged(_by_run(pieces.cut(k), pieces), pieces.centroids, k, {}, 0.0, None)
    apart = [[_Pieces(part, k, fewer, seed + 1009 * i) for part in parts] for i in range(options.draws)]

    def agreement(own: Callable[[_Pieces], Tensor]) -> Tensor:
        """How far the whole and each part of the folder agree, the mean over the draws: [parts]."""
        found = torch.zeros(len(draws), len(parts), dtype=torch.float64)
        for i, (whole, of_parts) in enumerate(zip(draws, apart, strict=True)):
            labels = whole.labels(own(whole), rows)
            for j, part in enumerate(of_parts):
                found[i, j] = adjusted_rand(labels, part.labels(own(part), rows), rows.weight)
        return found.mean(0)

    plain = agreement(lambda one: one.cut(k))
    tried = {k: float(plain.mean())}
    groups = min(k, *(one.alike_groups() for one in draws))
    further = max(1, (k - groups) // options.tries)
    while groups < k:
        found = agreement(lambda one: one.cut(groups))  # noqa: B023 (called at once)
        tried[groups] = float(found.mean())
        if as_good(found, plain):
            break
        groups = min(k, groups + further)
    whole = float(agreement(lambda one: one.clusters(k, groups)).mean())
    pieces = most_typical(draws, rows, groups)
    return Merged(
        _by_run(pieces.clusters(k, groups), pieces), pieces.centroids, groups, tried, standard_error(plain), whole
    )


def most_typical(draws: "Sequence[_Pieces]", rows: RegionRows, groups: int) -> "_Pieces":
    """The one whose groups agree most with those of the others; of two, or one, the first."""
    if len(draws) < 3:
        return draws[0]
    labels = [one.labels(one.cut(groups), rows) for one in draws]
    alike = torch.zeros(len(draws), len(draws), dtype=torch.float64)
    for i, j in combinations(range(len(draws)), 2):
        alike[i, j] = alike[j, i] = adjusted_rand(labels[i], labels[j], rows.weight)
    return draws[int(alike.sum(1).argmax())]


def as_good(found: Tensor, best: Tensor) -> bool:
    """Whether the mean of some values is at most one standard error of the best ones below the mean of these."""
    # Of one clustering with itself, equal to the last bits.
    return float(found.mean()) >= float(best.mean()) - standard_error(best) - 1e-9


def standard_error(values: Tensor) -> float:
    """Of the mean of values [N]; 0 of one."""
    return float(values.std(unbiased=True)) / len(values) ** 0.5 if len(values) > 1 else 0.0


def adjusted_rand(left: Tensor, right: Tensor, weight: Tensor) -> float:
    """How far two clusterings agree beyond chance: 1 entirely, 0 as chance would; labels int64 [R], weights [R].

    Source: Hubert and Arabie, Comparing Partitions (1985), with shares of the weight in place of counts.
    """
    weight = weight.double() / weight.double().sum()
    table = (F.one_hot(left).double() * weight[:, None]).T @ F.one_hot(right).double()
    both = float(table.square().sum())
    one, other = float(table.sum(1).square().sum()), float(table.sum(0).square().sum())
    most = (one + other) / 2
    return 1.0 if most == one * other else (both - one * other) / (most - one * other)


class _Pieces:
    """The pieces of several runs of k-means, what belongs together among them, and their dendrogram."""

    def __init__(self, rows: RegionRows, k: int, options: MergeOptions, seed: int) -> None:
        runs = options.runs
        most = min(len(rows) // options.regions_each, options.most_pieces)
        count = max(k, min(max(options.pieces * k, options.least_pieces), most))
        made = [kmeans(rows.points, count, seed=seed + 101 * i, restarts=1) for i in range(runs)]
        self.runs, self.count = runs, count
        self.centroids = torch.stack([centroids for centroids, _ in made])
        shares = torch.cat([F.one_hot(labels, count) for _, labels in made], dim=1).double()
        self.weight = (shares * rows.weight.double()[:, None]).sum(0)
        self.weight = (self.weight / self.weight.sum()).clamp(min=1e-12)
        run = torch.arange(runs * count) // count
        beside = (run[:, None] == run[None]).fill_diagonal_(False)  # pairs of pieces that share no region
        how = BelongingOptions()
        signs = [
            belonging.coassociation(rows.code, shares, how, seed=seed),
            belonging.links(rows.code, shares, rows.image, how),
            belonging.texture(rows.texture.double(), shares),
        ]
        self.alike = torch.stack([belonging.standardized(sign, beside) for sign in signs]).mean(0)
        self.alike = (self.alike + self.alike.T) / 2
        self.joins = average_linkage(-self.alike, self.weight.tolist())
        self._nearest: tuple[RegionRows, Tensor] | None = None  # the rows last asked for, and the piece of each by run

    def alike_groups(self) -> int:
        """How many groups are left when only those more alike than two pieces are on average are joined; 2 or more."""
        return 2 + sum(join.height > 0 for join in self.joins[:-1])

    def cut(self, groups: int) -> Tensor:
        """The group of every piece, int64 [runs × pieces], 0..groups-1."""
        own = torch.arange(len(self.weight))
        for join in self.joins[: len(own) - groups]:
            own[own == join.gone] = join.into
        return torch.from_numpy(np.unique(own.numpy(), return_inverse=True)[1])

    def clusters(self, k: int, groups: int) -> Tensor:
        """The cluster of every piece: the groups, and what they give away until there are k."""
        own = self.cut(min(k, groups))
        branches = self._branches()
        inside, heavy = branches.double(), branches * self.weight
        share, toward = heavy.sum(1), heavy @ self.alike.clone().fill_diagonal_(0)
        runs = branches.reshape(len(branches), self.runs, self.count).any(2).sum(1)
        fit = (share >= _SMALLEST / k) & (share <= _LARGEST / k) & (runs > self.runs // 2)
        given = torch.zeros(groups)
        held = torch.zeros(groups).double().index_add(0, own, self.weight)
        while int(own.max()) + 1 < k and bool((held > 0).any()):
            group = int((held / (1 + given)).argmax())
            member = own == group
            below = fit & (inside @ member.double() == inside.sum(1)) & (inside.sum(1) < member.sum())
            if not below.any():
                held[group] = 0  # has nothing more to give
                continue
            rest = self.weight * member - heavy
            affinity = (toward * rest).sum(1) / (share * rest.sum(1)).clamp(min=1e-12)
            branch = int(affinity.masked_fill(~below, torch.inf).argmin())
            own = own.masked_fill(branches[branch], int(own.max()) + 1)
            given[group] += 1
            held[group] -= share[branch]
        return self._halved(own, k, branches)

    def _halved(self, own: Tensor, k: int, branches: Tensor) -> Tensor:
        """Where nothing that is left may be given: the largest that the dendrogram still cuts, at its highest join."""
        while int(own.max()) + 1 < k:
            held = torch.zeros(int(own.max()) + 1).double().index_add(0, own, self.weight)
            for group in held.argsort(descending=True).tolist():
                member = own == group
                below = [one for one in branches if bool(one[member].any()) and not bool(one[member].all())]
                if below:
                    own = own.masked_fill(below[-1] & member, int(own.max()) + 1)
                    break
            else:
                return own
        return own

    def _branches(self) -> Tensor:
        """Every leaf and every union that the dendrogram makes, in its order: bool [2 × pieces - 2, pieces]."""
        count = len(self.weight)
        below = {i: torch.arange(count) == i for i in range(count)}
        found = list(below.values())
        for join in self.joins:
            below[join.into] = below[join.into] | below.pop(join.gone)
            found.append(below[join.into])
        return torch.stack(found)

    def labels(self, own: Tensor, rows: RegionRows) -> Tensor:
        """The cluster of every region of a folder, by the pieces of this part of it: int64 [R]."""
        if self._nearest is None or self._nearest[0] is not rows:
            points = F.normalize(rows.points.float(), dim=1)
            self._nearest = rows, torch.stack([nearest(points, one)[1] for one in self.centroids])
        votes = torch.zeros(len(rows), int(own.max()) + 1)
        for mine, piece in zip(own.reshape(self.runs, -1), self._nearest[1], strict=True):
            votes[torch.arange(len(rows)), mine[piece]] += 1
        return votes.argmax(1)


def _parts(rows: RegionRows, count: int, k: int) -> list[RegionRows]:
    """The folder in so many stretches of images that follow one another; none where a part would say nothing."""
    images = np.unique(rows.image.numpy())
    if len(images) < count * _PART_IMAGES:
        return []
    edges = [int(images[len(images) * i // count]) for i in range(count)] + [int(images[-1]) + 1]
    found = [rows.where((rows.image >= low) & (rows.image < high)) for low, high in pairwise(edges)]
    return found if min(map(len, found)) >= 2 * k else []


def _by_run(own: Tensor, pieces: _Pieces) -> Tensor:
    return own.reshape(pieces.runs, pieces.count)
