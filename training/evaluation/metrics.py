"""Label maps against ground truth: confusion, matching, IoU, accuracy.

Knows nothing of networks or data sets: integer arrays in, fractions 0..1 out. Used for scoring only; no
method sees what this file is given.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from models.types import Array

EXTRA = -1  # class of a cluster that no class was matched to


@dataclass(frozen=True)
class Scores:
    """How well clusters fit classes. All fractions are 0..1; percent belongs to whoever prints.

    confusion  int64 [K, N]    pixels of cluster k that show class n
    match      int64 [K]       class of every cluster; EXTRA where there is none
    iou        float64 [N]     NaN for a class that does not occur
    precision  float64 [N]     share of the pixels given to a class that show it; NaN for one that does not occur, or is
                               never predicted
    miou       mean of `iou` without the NaNs
    accuracy   share of all pixels in the right class; pixels of extra clusters are errors
    """

    confusion: Array
    match: Array
    iou: Array
    precision: Array
    miou: float
    accuracy: float

    @property
    def mean_precision(self) -> float:
        """Mean over the classes that occur and are predicted at all; CAUSE's code prints it as "mAP"."""
        return _mean(self.precision)


def confusion(predicted: Array, true: Array, clusters: int, classes: int) -> Array:
    """Pixels by cluster and class: int64 [K, N]. Sum it over images.

    predicted  int [...]  ids 0..K-1
    true       int [...]  0..N-1; every other value (255, -1) is ignored

    A pixel counts whatever its cluster: upstream STEGO drops those of extra clusters, and a clustering
    that fails on two thirds of the pixels scores 100 % there.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape:
        raise ValueError(f"labels {predicted.shape} and ground truth {true.shape} differ in shape")
    counted = (true >= 0) & (true < classes)
    cluster, label = predicted[counted].astype(np.int64), true[counted].astype(np.int64)
    if cluster.size and not (cluster.min() >= 0 and cluster.max() < clusters):
        raise ValueError(f"cluster ids {cluster.min()}..{cluster.max()} do not fit {clusters} clusters")
    counts = np.bincount(cluster * classes + label, minlength=clusters * classes)
    return counts.reshape(clusters, classes).astype(np.int64)


def match(confusion: Array) -> Array:
    """The class of every cluster that makes most pixels right: int64 [K], EXTRA for the clusters left over.

    A class without a pixel is nobody's: matched, it would be an IoU of 0 in the mean, for labels that count from 1.

    Source: Hungarian algorithm; one cluster per class.
    """
    held = np.flatnonzero(confusion.sum(axis=0))
    clusters, classes = linear_sum_assignment(confusion[:, held], maximize=True)
    found = np.full(len(confusion), EXTRA, np.int64)
    found[clusters] = held[classes]
    return found


def score(confusion: Array, matched: Array | None = None) -> Scores:
    """Scores of a confusion [K, N]; `matched` [K] replaces the Hungarian match (a linear probe's: arange)."""
    matched = match(confusion) if matched is None else np.asarray(matched, np.int64)
    classes = confusion.shape[1]
    known = matched != EXTRA
    by_class = np.zeros((classes, classes), np.int64)  # predicted class, true class
    np.add.at(by_class, matched[known], confusion[known])
    right = np.diagonal(by_class)
    given = by_class.sum(1)
    held = confusion.sum(0)
    iou = np.divide(right, given + held - right, out=np.full(classes, np.nan), where=held > 0)
    pixels = confusion.sum()
    return Scores(
        confusion=confusion,
        match=matched,
        iou=iou,
        precision=np.divide(right, given, out=np.full(classes, np.nan), where=(given > 0) & (held > 0)),
        miou=_mean(iou),
        accuracy=float(right.sum() / pixels) if pixels else float("nan"),
    )


def many_to_one(confusion: Array) -> float:
    """Share of all pixels that are right where every cluster is given the class that most of its pixels show: 0..1.

    Several clusters may have one class: what is lost is what the clusters mix, not what they split.
    """
    pixels = confusion.sum()
    return float(confusion.max(axis=1).sum() / pixels) if pixels else float("nan")


def _mean(values: Array) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
