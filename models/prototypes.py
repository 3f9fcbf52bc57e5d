"""Classes by example: a few places that a person pointed at → every pixel to the class that is likeliest there.

Knows nothing of images, files or networks: codes on the patch grid and what was said of them in, score maps out. These
are dot products with the code, so that they go the way of the network's own scores: interpolated, compared, refined
(`assign`, `refine`), without another pass of the network.

Every class is a prototype, the mean of the codes that were pointed at (Snell et al., arXiv:1703.05175), and codes are
told apart along the directions in which one class's own vary least: linear discriminant analysis, its covariance
shrunk towards a sphere by as much as examples are few. How often a class occurs is not told by clicks, of which every
class has a few; it is what best explains how often the network's clusters do (Saerens et al. 2002, Neural Computation
14: prior probabilities by EM), given how surely examples are known again when they are left out. Clusters that a person
says belong to a class speak for it beside its examples.

Where other classes have clusters only, these stay where the network found them, and a class of examples takes from them
what is like its examples: a cosine above a threshold. That is the higher, the more alike the examples are; and higher
outside of the clusters that they lie in, and where codes are more like these clusters than the examples are themselves.

A negative example takes its class down where codes are nearly like it, and nowhere else. What each of these was worth:
`benchmarks/teach.py`, docs/evaluation.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from models.assign import Interpolation, axes
from models.native.bindings import Axis
from models.types import WHOLE, Array, Box

_EPS = 1e-12
_PRIOR = 0.35  # power of the classes' frequencies: they are guessed from K numbers
_DOUBT = 0.2  # share of the training pixels that may be of any class, whatever the clusters say
_STEPS = 50
_CLUSTERS = 0.5  # weight of a class's clusters beside its examples
_HOME = 0.5  # weight of the clusters that a class's examples lie in, where other classes have clusters only
_REACH = (0.25, 0.35)  # threshold of the cosine there: a number, and times the examples' own cosine left out
_AGREEMENT = (0.4, 5 / 7)  # the least that cosine is taken for, and what it is of a class of one example
_SURENESS = tuple(np.geomspace(0.02, 1.5, 16))  # that are tried
_SUREST = 1e4  # temperature
_UNTRIED = 18.0  # temperature of cosines where no class has two examples
_ASKED = 2048  # examples that are left out, evenly drawn: more say the same; and negative ones that are looked at
_NEAR = (
    0.8  # cosine from which a place is like a negative example: what was said of one holds there, the more the liker
)
_MOST_REJECTED = 256  # negative examples that take part: each is one more product with the code
_BELOW = 0.05  # by how much a negative example puts its class below another
_ALIKE = 0.95  # cosine of two negative examples that are of one place
_STRIP_PX = 2**22  # of a mask, widened at once


class Example(NamedTuple):
    """A place that somebody pointed at.

    class_id  of which class it is said
    code      float32 [D], the mean code there, of length 1
    at        (y, x) of its middle as fractions of the image, 0..1
    negative  it is said not to be that class
    """

    class_id: int
    code: Array
    at: tuple[float, float]
    negative: bool = False


class Taught(NamedTuple):
    """One class: its id 0..254 and the clusters that belong to it."""

    id: int
    clusters: tuple[int, ...] = ()


class _Rejected(NamedTuple):
    """Where a class is said not to be: its score map's number; codes float32 [n, D]; how far they take it down."""

    m: int
    places: Array
    depths: Array


class _Among(NamedTuple):
    """Classes of examples among classes of clusters only.

    told   of the former, which is which;  maps  their score maps' numbers
    rows   float32 [n, D], times the code, less bias  float32 [n], times its length: how like each one's examples it is
    homes  float32 [n, D], times the code: how like the clusters that they lie in;  inside  float32 [n], times its
           length: how like these they are themselves
    """

    told: "Classifier"
    maps: list[int]
    rows: Array
    bias: Array
    homes: Array
    inside: Array


@dataclass(frozen=True)
class Classifier:
    """What examples and clusters make together; made once for every change of them, used for every image.

    ids          uint8 [M], ascending: the class of each score map
    temperature  what scores are to be multiplied with, so that a softmax says how likely each class is, as `refine`
                 needs it; None: what the network's own scores are multiplied with
    """

    ids: Array
    _rows: Array  # float32 [M, D], times the code
    _bias: Array  # float32 [M], times the code's length
    _clusters: tuple[tuple[int, ...], ...] = ()  # of each class; empty where no class has any
    _weight: float = 0.0  # of what the clusters say; infinite where there is no example
    temperature: float | None = None
    _rejected: tuple[_Rejected, ...] = ()
    _among: _Among | None = None

    @classmethod
    def fit(
        cls,
        centroids: Array,
        classes: Sequence[Taught],
        examples: Sequence[Example],
        fractions: Sequence[float] | None = None,
    ) -> "Classifier | None":
        """Of classes with an example or a cluster; None where there is none.

        centroids  float32 [K, D];  fractions  of the training pixels that each of them has, as the manifest tells;
                   without them, all classes are taken to be equally frequent
        """
        own: dict[int, list[Array]] = {one.id: [] for one in classes}
        for example in examples:
            if not example.negative and example.class_id in own:
                own[example.class_id].append(example.code)
        used = [one for one in sorted(classes) if own[one.id] or one.clusters]
        if not used:
            return None
        shown = [one for one in used if own[one.id]]
        found = cls._of(centroids, shown or used, own, fractions if len(shown) == len(used) else None)
        if 0 < len(shown) < len(used):
            found = cls._beside_clusters(centroids, used, own, found)
        at = {one.id: m for m, one in enumerate(used)}
        negative = [e for e in examples if e.negative and e.class_id in at][-_ASKED:]
        if not negative:
            return found
        places = _unit(np.array([e.code for e in negative], np.float64)).astype(np.float32)
        said = found.scores(places.T[:, None], (centroids @ places.T)[:, None])[:, 0].T
        return replace(found, _rejected=_rejected(places, np.array([at[e.class_id] for e in negative]), said))

    @classmethod
    def _beside_clusters(
        cls, centroids: Array, used: Sequence[Taught], own: dict[int, list[Array]], told: "Classifier"
    ) -> "Classifier":
        """Of classes of which only some have examples.

        own  the codes of each;  told  the classes that have some, among themselves
        """
        size = float(np.linalg.norm(centroids, axis=1).mean())
        rows, bias, homes, inside = [], [], [], []
        for one in used:
            if own[one.id]:
                codes = _unit(np.array(own[one.id], np.float64))
                scores = codes @ centroids.T
                rows.append(size * _unit(codes.mean(axis=0)))
                bias.append(size * (_REACH[0] + _REACH[1] * _agreement(codes)))
                homes.append(centroids[scores.argmax(axis=1)].mean(axis=0))
                inside.append(scores.max(axis=1).mean())
        maps = [m for m, one in enumerate(used) if own[one.id]]
        among = _Among(told, maps, *(np.array(each, np.float32) for each in (rows, bias, homes, inside)))
        ids = np.array([one.id for one in used], np.uint8)
        clusters = tuple(one.clusters for one in used)
        nothing = np.zeros((len(used), centroids.shape[1]), np.float32)
        return cls(ids, nothing, nothing[:, 0], clusters, _among=among)

    @classmethod
    def _of(
        cls, centroids: Array, used: Sequence[Taught], own: dict[int, list[Array]], fractions: Sequence[float] | None
    ) -> "Classifier":
        """Of classes that all have examples, or none has; own  the codes of each."""
        centers = _unit(np.asarray(centroids, np.float64))
        ids = np.array([one.id for one in used], np.uint8)
        clusters = tuple(one.clusters for one in used)
        counts = np.array([len(own[one.id]) for one in used])
        of = np.repeat(np.arange(len(used)), counts)
        codes = _unit(
            np.array([code for one in used for code in own[one.id]], np.float64).reshape(-1, centers.shape[1])
        )
        means = np.array(
            [
                codes[of == m].mean(axis=0) if counts[m] else centers[list(clusters[m])].mean(axis=0)
                for m in range(len(used))
            ]
        )
        metric = _Metric.of(codes - means[of], int(np.maximum(counts - 1, 0).sum()))
        means = _drawn_together(means, codes - means[of], of, counts)
        rows = metric.inverse(means)
        bias = -(rows * means).sum(axis=1) / 2
        sureness = _sureness(codes, of, means, counts, metric)
        if fractions is not None and counts.min() > 1:
            scores = sureness * (centers @ rows.T + bias)
            bias = bias + _PRIOR / sureness * np.log(_frequencies(scores, np.asarray(fractions, np.float64)))
        scale = _spread(_unit(means)) / max(_spread(rows), _EPS)  # differences as large as those of cosines
        rows, bias = (rows * scale, bias * scale) if len(used) > 1 else (_unit(means), 0 * bias)
        size = float(np.linalg.norm(centroids, axis=1).mean())
        weight = _CLUSTERS / max(size, _EPS) if len(codes) else np.inf
        return cls(
            ids,
            rows.astype(np.float32),
            bias.astype(np.float32),
            clusters if any(clusters) else (),
            weight,
            min(sureness / scale, _SUREST) if len(codes) and scale > 0 else None,
        )

    def scores(self, code: Array, scores: Array, box: Box = WHOLE) -> Array:
        """float32 [M, h, w] of one image: as the network's own scores, one map for each of `ids`.

        code    float32 [D, h, w];  scores  float32 [K, h, w], of the network
        box     the part of the grid that the image fills
        """
        depth, height, width = code.shape
        flat = code.reshape(depth, -1)
        lengths = np.sqrt(np.einsum("dn,dn->n", flat, flat))
        if self._among is not None:
            found = self._beside(self._among, code, scores, flat, lengths)
        elif self._clusters and np.isinf(self._weight):
            found = _of_clusters(scores, self._clusters)
        else:
            rows = np.hstack([self._rows, self._bias[:, None]])
            found = (rows @ np.vstack([flat, lengths])).reshape(-1, height, width)  # one pass over as many maps
            if self._clusters:
                found += np.float32(self._weight) * _of_clusters(scores, self._clusters)
        for m, places, depths in self._rejected:
            near = (
                np.maximum(places @ flat - np.float32(_NEAR) * lengths, 0) * (depths / np.float32(1 - _NEAR))[:, None]
            )
            found[m] -= near.max(axis=0).reshape(height, width)
        return found

    def _beside(self, among: _Among, code: Array, scores: Array, flat: Array, lengths: Array) -> Array:
        """float32 [M, h, w]: clusters' scores as the network's, and classes of examples above the best of them as far
        as they reach; which of these it is, they tell among themselves."""
        best = scores.max(axis=0)
        like = among.rows @ flat - among.bias[:, None] * lengths
        home = np.minimum(among.homes @ flat, among.inside[:, None] * lengths)  # at its core it stays the cluster's
        reach = (like + np.float32(_HOME) * home).max(axis=0).reshape(best.shape) + np.float32(1 - _HOME) * best
        told = among.told.scores(code, scores)
        told += reach - told.max(axis=0)
        found = np.full((len(self.ids), *best.shape), -np.inf, np.float32)
        found[among.maps] = told
        for m, own in enumerate(self._clusters):
            if own:
                np.maximum(found[m], scores[list(own)].max(axis=0), out=found[m])
        return found


class _Metric(NamedTuple):
    """The inverse of a covariance Σ = spread · I + RᵀR: in what directions codes differ that mean the same.

    spread  a number;  rows  R, float64 [n, D]
    """

    spread: float
    rows: Array

    @classmethod
    def of(cls, residuals: Array, freedom: int) -> "_Metric":
        """Of residuals [n, D]: shrunk towards the sphere of the same size by as much as these are few for D."""
        dim = residuals.shape[1]
        total = float((residuals**2).sum())
        if not freedom or total <= _EPS:
            return cls(1 / dim, residuals[:0])
        kept = freedom / (1.5 * dim + freedom)
        return cls((1 - kept) * total / freedom / dim, residuals * np.sqrt(kept / freedom))

    def inverse(self, vectors: Array) -> Array:
        """Σ⁻¹ v of each of vectors [m, D]."""
        rows, dim = self.rows, vectors.shape[1]
        if len(rows) >= dim:
            return np.asarray(np.linalg.solve(self.spread * np.eye(dim) + rows.T @ rows, vectors.T).T)
        inner = self.spread * np.eye(len(rows)) + rows @ rows.T  # Woodbury: n × n where there are fewer rows than D
        return np.asarray((vectors - (vectors @ rows.T) @ np.linalg.solve(inner, rows)) / self.spread)


def _of_clusters(scores: Array, clusters: Sequence[Sequence[int]]) -> Array:
    """float32 [M, h, w]: of every class its best cluster's score [K, h, w].

    A class without clusters has the best of those that no class has; where all are taken, it is between the best two
    classes everywhere.
    """
    taken = {k for own in clusters for k in own}
    free = [k for k in range(len(scores)) if k not in taken]
    known = np.stack([scores[list(own)].max(axis=0) for own in clusters if own])
    if free:
        other = scores[free].max(axis=0)
    else:
        other = np.sort(known, axis=0)[-2:].mean(axis=0)
    ranks = iter(known)
    return np.stack([next(ranks) if own else other for own in clusters]).astype(np.float32)


def _drawn_together(means: Array, residuals: Array, of: Array, counts: Array) -> Array:
    """Means [M, D] nearer to the mean of all, the less sure they are: few examples, and unlike each other.

    Source: Stein's shrinkage, its share that of the mean's own error in how far means lie apart.
    """
    middle = means.mean(axis=0)
    apart = float(((means - middle) ** 2).sum(axis=1).mean())
    squares = np.bincount(of, (residuals**2).sum(axis=1), len(means))
    pooled = squares.sum() / max(int((counts - 1).clip(0).sum()), 1)
    error = np.where(counts > 1, squares / np.maximum(counts - 1, 1), pooled) / np.maximum(counts, 1)
    share = (error / np.maximum(error + apart, _EPS))[:, None]
    return np.asarray(means + share * (middle - means))


def _sureness(codes: Array, of: Array, means: Array, counts: Array, metric: _Metric) -> float:
    """By what factor scores are to be taken so that examples which their class's mean is taken without are likeliest.

    Discriminants believe that every direction speaks for itself, and are far too sure.
    """
    asked = np.flatnonzero(counts[of] > 1)
    if not len(asked) or len(means) < 2:
        return _UNTRIED * metric.spread
    asked = asked[:: -(-len(asked) // _ASKED)]
    x, own = codes[asked], of[asked]
    rows = metric.inverse(means)
    scores = x @ rows.T - (rows * means).sum(axis=1) / 2
    share = 1 / counts[own]
    without = (means[own] - share[:, None] * x) / (1 - share)[:, None]
    others = metric.inverse(without)
    scores[np.arange(len(x)), own] = (others * (x - without / 2)).sum(axis=1)
    said = [np.log(_softmax(one * scores)[np.arange(len(x)), own] + 1e-9).mean() for one in _SURENESS]
    return float(_SURENESS[int(np.argmax(said))])


def _agreement(codes: Array) -> float:
    """How like each of codes [n, D], of length 1, is to the mean of the others: the mean cosine."""
    least, alone = _AGREEMENT
    if len(codes) < 2:
        return alone
    return max(least, float((codes * _unit(codes.sum(axis=0) - codes)).sum(axis=1).mean()))


def _frequencies(scores: Array, fractions: Array) -> Array:
    """How often each class occurs, float64 [M], sum 1, from what is said of K places that occur `fractions` often.

    scores  float64 [K, M], log likelihoods

    Source: Saerens, Latinne & Decaestecker 2002, with a Dirichlet prior.
    """
    found = np.full(scores.shape[1], 1 / scores.shape[1])
    for _ in range(_STEPS):
        found = fractions @ _softmax(scores + np.log(found))
        found = (found / found.sum() + _DOUBT / len(found)) / (1 + _DOUBT)
    return np.asarray(found)


def _rejected(places: Array, classes: Array, scores: Array) -> tuple[_Rejected, ...]:
    """What takes every class below another where it is said not to be.

    places  float32 [n, D] of length 1;  classes  int [n], the place of each in scores  float32 [n, M]
    """
    found = []
    alike = places @ places.T > _ALIKE
    depths = np.zeros(len(places), np.float32)
    for i, m in enumerate(classes):
        others = np.delete(scores[i], np.unique([m, *classes[alike[i]]]))
        depths[i] = max(scores[i, m] - others.max() + _BELOW, 0) if len(others) else 0
    deepest = np.argsort(-depths, kind="stable")[:_MOST_REJECTED]
    kept = np.sort(deepest[depths[deepest] > 0])
    for m in np.unique(classes[kept]):
        own = kept[classes[kept] == m]
        found.append(_Rejected(int(m), places[own], depths[own]))
    return tuple(found)


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _EPS))


def _spread(rows: Array) -> float:
    return float(np.linalg.norm(rows - rows.mean(axis=0)))


def _softmax(scores: Array) -> Array:
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def code_at(code: Array, mask: Array, box: Box = WHOLE, interpolation: Interpolation = "bilinear") -> Array:
    """The mean code of the pixels where bool [H, W] `mask` is True, float32 [D] of length 1.

    code  float32 [D, h, w]

    Interpolation is linear: the mask is carried to the grid, and the pixels' codes are never made. Raises ValueError
    where the mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask is empty: mark at least one pixel")
    height, width = mask.shape
    down, across = axes(code.shape[1:], (height, width), box, interpolation)
    columns = _weights(across, code.shape[2])
    weights = np.zeros(code.shape[1:], np.float64)
    step = max(1, _STRIP_PX // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        part = Axis(down.low[rows], down.high[rows], down.weight[rows])
        weights += _weights(part, code.shape[1]).T @ (mask[rows].astype(np.float32) @ columns)
    total = np.tensordot(code.astype(np.float64), weights, axes=2)
    return (total / max(float(np.linalg.norm(total)), _EPS)).astype(np.float32)


def _weights(axis: Axis, cells: int) -> Array:
    """float32 [n, cells]: how much of every cell each of an axis's places is made of."""
    found = np.zeros((len(axis.low), cells), np.float32)
    places = np.arange(len(axis.low))
    found[places, axis.high] = axis.weight
    found[places, axis.low] += 1 - axis.weight
    return found
