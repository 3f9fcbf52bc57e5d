"""Which cluster of a new bundle is which of the old one, so that what people called it can follow.

Knows nothing of names, files or servers: centroids and label maps in, pairs of ids out.

Two clusters belong together when the best assignment of all of them pairs the two, each is the other's best, and they
are alike beyond doubt. Alike is told in one of two ways:

    centroids  the codes of both networks live in one space: the old centroids, met by the new network's code, give
               the old labels of an image again. Then it is the cosine of the centroids, at least 0.9.
    overlap    they do not: then it is intersection over union of the two on images that both have seen, at least 0.5.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from models.bundle import Bundle, Golden
from models.inference import AGREEMENT, Prediction, Predictor, segment
from models.preprocess import fit
from models.types import Array

COSINE = 0.9
OVERLAP = 0.5
_LEAST = 64  # pixels: of fewer, an overlap says nothing


class Pair(NamedTuple):
    """An old cluster and the new one it is, with how alike they are, 0..1."""

    old: int
    new: int
    score: float


class Match(NamedTuple):
    """Pairs beyond doubt, by old id, and how they were told."""

    by: Literal["centroids", "overlap"]
    pairs: dict[int, Pair]


class Fingerprint(NamedTuple):
    """What is left of a network when it is gone: centroids float32 [K, D], an image and the labels it gave."""

    centroids: Array
    golden: Golden


def match(old: Fingerprint, new: Bundle, predict: Predictor, also: Sequence[tuple[Array, Array]] = ()) -> Match:
    """The clusters of a bundle, whose network is `predict`, against the old one's.

    also  further images both have seen: old and new labels uint8 [H, W] of each
    """
    image, before = old.golden
    encoded = predict(fit(image, new.manifest.input).pixels[None], code=True)

    def labels(scores: Array) -> Array:
        return segment(new, lambda pixels, *, code=False: Prediction(scores), image)

    if encoded.code is not None and encoded.code.shape[1] == old.centroids.shape[1]:
        scores = np.einsum("kd,bdhw->bkhw", old.centroids, encoded.code)
        if (labels(scores) == before).mean() >= AGREEMENT:
            return Match("centroids", certain(cosines(old.centroids, new.centroids), COSINE))
    shared = overlaps([(before, labels(encoded.scores)), *also], len(old.centroids), len(new.centroids))
    return Match("overlap", certain(shared, OVERLAP))


def cosines(old: Array, new: Array) -> Array:
    """float64 [K, K']: of every old centroid with every new one, below zero as zero."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12) for rows in (old, new)]
    cosine: Array = unit[0].astype(np.float64) @ unit[1].T.astype(np.float64)
    return cosine.clip(0, 1)


def overlaps(maps: Sequence[tuple[Array, Array]], k_old: int, k_new: int) -> Array:
    """float64 [K, K']: intersection over union over all the images together; 0 where too few pixels speak."""
    both = np.zeros((k_old, k_new))
    for old, new in maps:
        pairs = old.ravel().astype(np.intp) * k_new + new.ravel()
        both += np.bincount(pairs, minlength=k_old * k_new).reshape(k_old, k_new)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    return np.where(union >= _LEAST, both / np.maximum(union, 1), 0.0)


def certain(alike: Array, threshold: float) -> dict[int, Pair]:
    """The pairs of the best assignment that are each other's only best and reach the threshold, by old id."""
    pairs = {}
    for old, new in zip(*hungarian(-alike), strict=True):
        score = alike[old, new]
        rivals = (alike[old] >= score).sum() + (alike[:, new] >= score).sum() - 2
        if score >= threshold and rivals == 0:
            pairs[int(old)] = Pair(int(old), int(new), round(float(score), 4))
    return pairs


def hungarian(cost: Array) -> tuple[Array, Array]:
    """Rows and columns of the one-to-one assignment of least total cost, rows ascending; min(n, m) pairs.

    cost  float [n, m], finite

    Shortest augmenting paths with potentials, O(n² m). Source: Jonker and Volgenant, Computing 38 (1987).
    """
    if cost.shape[0] > cost.shape[1]:
        columns, rows = hungarian(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    n, m = cost.shape
    row_price, column_price = np.zeros(n), np.zeros(m)
    owner = np.full(m, -1)  # of every column: its row
    for row in range(n):
        nearest, before = np.full(m, np.inf), np.full(m, -1)
        open_ = np.ones(m, bool)
        reached, length, here = -1, 0.0, row
        while here != -1:  # until a column is free
            through = length + cost[here] - row_price[here] - column_price
            shorter = open_ & (through < nearest)
            nearest[shorter], before[shorter] = through[shorter], reached
            reached = int(np.where(open_, nearest, np.inf).argmin())
            length = nearest[reached]
            open_[reached] = False
            here = owner[reached]
        done = ~open_
        slack = length - nearest[done]
        column_price[done] -= slack
        matched = owner[done]
        row_price[matched[matched >= 0]] += slack[matched >= 0]
        row_price[row] += length
        while reached != -1:  # turn the path around
            previous = before[reached]
            owner[reached] = owner[previous] if previous != -1 else row
            reached = previous
    columns = np.flatnonzero(owner >= 0)
    order = np.argsort(owner[columns])
    return owner[columns][order], columns[order]
