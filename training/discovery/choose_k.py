"""How many clusters codes have: a curve over K, a proposal, a sentence.

Knows nothing of images, networks or files: codes in, numbers out.

For every K the codes are clustered several times, each time of another half of the images, and the clusterings are
compared with each other and with what the first one says of the same places in mirrored and in cropped images. A
cluster counts by its best match's IoU, each alike whatever its size: one of twelve groups that is cut in two at random
is seen. Clusterings of anything agree somewhat, the more the fewer clusters there are; so the same is done with codes
drawn from one Gaussian of the same covariance, and only what is above that counts.

Source: stability against a null model, Lange et al. 2004 (Stability-based validation of clustering solutions); clusters
compared one by one, Hennig 2007; silhouette with centroids instead of points, Rousseeuw 1987.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from training.clustering.kmeans import kmeans, nearest

KS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 24, 28, 32, 40)
_FITS, _RESTARTS = 3, 4  # of structureless codes no restart finds anything better
_POINTS = 2500
_UNUSED = 0.002  # of the points: a cluster with fewer is as good as none
_ITERATIONS = 15
_ABOUT_AS_GOOD = 0.95  # of the best worth


@dataclass(frozen=True)
class At:
    """What is known of one K: all 0..1 but `silhouette`, which is −1..1, and `unused`, a count.

    stability  mean IoU of clusters with themselves in other clusterings, mirrored and cropped images
    chance     the same of structureless codes
    """

    k: int
    stability: float
    chance: float
    silhouette: float
    unused: int

    @property
    def worth(self) -> float:
        """What K is chosen by: stability beyond chance, as a share of what there was to gain, times √silhouette.

        Of two K alike in that, the one whose labels tell more, √(log K), and whose clusters are used.
        """
        beyond = max(0.0, self.stability - self.chance) / max(1e-6, 1 - self.chance)
        used = (self.k - self.unused) / self.k
        return beyond * used * math.sqrt(max(0.0, self.silhouette) * math.log(self.k))


@dataclass(frozen=True)
class Proposal:
    """K, the curve it was read off, and what that says, as one sentence for people."""

    k: int
    curve: tuple[At, ...]
    sentence: str

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"curve": [asdict(at) for at in self.curve], "proposed": self.k, "sentence": self.sentence}


def propose(views: Tensor, image: Tensor, *, ks: Sequence[int] = KS, seed: int = 0) -> Proposal | None:
    """The K of the largest worth; None where there are too few points for any. Arguments as of `curve`."""
    found = curve(views, image, ks=ks, seed=seed)
    if not found:
        return None
    best = max(found, key=lambda at: at.worth)
    return Proposal(best.k, tuple(found), _said(best, found))


def _said(best: At, found: Sequence[At]) -> str:
    if not best.worth:
        return (
            f"no number of clusters stands out between {found[0].k} and {found[-1].k}: clusterings of these codes agree"
            " no more than those of structureless ones"
        )
    beside = [at.k for at in found if at is not best and at.worth >= _ABOUT_AS_GOOD * best.worth]
    others = f"; about as good: {', '.join(map(str, beside))}" if beside else ""
    unused = f", {best.unused} of them hardly used" if best.unused else ""
    return (
        f"K = {best.k} is the most telling of {found[0].k} to {found[-1].k}{unused}: a cluster comes back to"
        f" {best.stability:.0%} in other clusterings, mirrored and cropped images ({best.chance:.0%} by chance),"
        f" silhouette {best.silhouette:.2f}{others}"
    )


def curve(views: Tensor, image: Tensor, *, ks: Sequence[int] = KS, seed: int = 0) -> list[At]:
    """One entry per K that so many points allow.

    views  float [V, n, D], codes of the same places in the images as they are and changed; V ≥ 1
    image  int64 [n], which image each place is of
    """
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(image), generator=generator)[:_POINTS].sort().values
    views, image = F.normalize(views[:, some].float(), dim=-1), image[some]
    null = _structureless(views[0], generator)
    halves = [_half(image, generator) for _ in range(_FITS)]
    found = []
    for k in ks:
        if k * 4 > min(int(half.sum()) for half in halves):
            break
        stability, silhouette, unused = _measured(views, halves, k, seed, _RESTARTS)
        found.append(At(k, stability, _measured(null[None], halves, k, seed, 1)[0], silhouette, unused))
    return found


def _measured(views: Tensor, halves: Sequence[Tensor], k: int, seed: int, restarts: int) -> tuple[float, float, int]:
    fits = [
        kmeans(views[0, half], k, seed=seed + i, restarts=restarts, iterations=_ITERATIONS)[0]
        for i, half in enumerate(halves)
    ]
    labels = [nearest(views[0], centroids)[1] for centroids in fits]
    seeds = [overlap(a, b, k) for a, b in combinations(labels, 2)]
    kinds = [sum(seeds) / len(seeds)]
    kinds += [overlap(labels[0], nearest(view, fits[0])[1], k) for view in views[1:]]
    near = (views[0] @ fits[0].T).clamp(-1, 1).topk(2, dim=1).values
    own, other = (1 - near).clamp(min=1e-9).unbind(1)
    counts = torch.bincount(labels[0], minlength=k)
    return sum(kinds) / len(kinds), float((1 - own / other).mean()), int((counts < _UNUSED * len(labels[0])).sum())


def overlap(a: Tensor, b: Tensor, k: int) -> float:
    """Mean over the clusters of two clusterings of the same points of the IoU with the cluster's match: 0..1."""
    table = torch.bincount(a * k + b, minlength=k * k).reshape(k, k).double()
    union = table.sum(1, keepdim=True) + table.sum(0) - table
    iou = table / union.clamp(min=1)
    rows, columns = linear_sum_assignment(-iou.numpy())
    return float(iou[rows, columns].mean())


def _half(image: Tensor, generator: torch.Generator) -> Tensor:
    """Which points are of a random half of the images: bool [n]; of a single image, of all of it."""
    ids = torch.tensor(sorted(set(image.tolist())))
    if len(ids) < 2:
        return torch.ones_like(image, dtype=torch.bool)
    return torch.isin(image, ids[torch.randperm(len(ids), generator=generator)[: len(ids) // 2]])


def _structureless(points: Tensor, generator: torch.Generator) -> Tensor:
    """As many points of one Gaussian with the same mean and covariance, at length 1."""
    mean = points.mean(0)
    centered = points - mean
    covariance = (centered.T @ centered / max(1, len(points) - 1)).double()
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()).float()
    drawn = torch.randn(len(points), len(values), generator=generator)
    return F.normalize(mean + drawn @ root.T, dim=-1)
