"""Do places whose features are alike show the same class? Precision and recall of that guess.

Knows nothing of bundles or clusters: maps, label maps and a seed in, curves out. Pairs of places are taken within an
image, between an image and its nearest neighbor, and between an image and a random other one. Similarities are
counted in bins, so memory does not grow with the number of pairs.

Source: STEGO (arXiv:2203.08414), figure 3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from models.types import Array, Box
from training.data.label_maps import IGNORED
from training.losses.correspondence import derangement

POINTS = 128  # of one image
IMAGES = 400  # their points are held in memory: 60 MB for codes of 90 and features of 768 channels
BINS = 4096
DRAWN = 201  # points of a curve that are kept
KINDS = ("one image", "nearest neighbor", "random other image")


@dataclass(frozen=True)
class Places:
    """Points of one image: their labels int64 [P], and by source unit vectors [P, C] and the mean's direction [C]."""

    labels: Array
    vectors: Mapping[str, Array]
    means: Mapping[str, Array]


@dataclass(frozen=True)
class Curve:
    """Precision at recall 0..1 in equal steps, `average_precision`, and the share of pairs of one class."""

    recall: list[float]
    precision: list[float]
    average_precision: float
    positives: float
    pairs: int


@dataclass
class PairCounts:
    """Counts of pairs int64 [2, BINS] by whether they show one class, and by similarity −1..1."""

    counts: Array = field(default_factory=lambda: np.zeros((2, BINS), np.int64))

    def add(self, similarity: Array, same: Array) -> None:
        """similarity float [...] in −1..1, same bool [...]."""
        bins = np.clip((similarity.ravel() + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64)
        self.counts += np.bincount(same.ravel() * BINS + bins, minlength=2 * BINS).reshape(2, BINS)

    def curve(self) -> Curve | None:
        """None where there is no pair of one class, or no pair at all."""
        false, true = np.cumsum(self.counts[:, ::-1], axis=1)
        if not true[-1]:
            return None
        reached = true + false > 0
        recall, precision = true[reached] / true[-1], true[reached] / (true + false)[reached]
        average = float((np.diff(recall, prepend=0.0) * precision).sum())
        wanted = np.linspace(0, 1, DRAWN)
        at = np.minimum(np.searchsorted(recall, wanted), len(recall) - 1)
        pairs = int(true[-1] + false[-1])
        return Curve(wanted.tolist(), precision[at].tolist(), average, float(true[-1] / pairs), pairs)


def places(
    maps: Mapping[str, Array], labels: Array, box: Box, rng: np.random.Generator, *, whole: bool = True
) -> Places | None:
    """Random labelled points of an image, or None where it has fewer than two.

    maps    by source: float32 [C, h, w]
    labels  uint8 [H, W], 255 = ignored;  box  the part of the maps it shows
    whole   whether the image holds data everywhere; if not, the means are of the points, which do
    """
    known = np.flatnonzero(labels.ravel() != IGNORED)
    if len(known) < 2:
        return None
    chosen = rng.choice(known, min(POINTS, len(known)), replace=False)
    rows, columns = np.divmod(chosen, labels.shape[1])
    at = (
        (rows + 0.5) / labels.shape[0] * box[2] + box[0],
        (columns + 0.5) / labels.shape[1] * box[3] + box[1],
    )
    sampled = {name: _sampled(map_, *at) for name, map_ in maps.items()}
    means = {name: map_.mean(axis=(1, 2)) if whole else sampled[name].mean(axis=0) for name, map_ in maps.items()}
    return Places(
        labels.ravel()[chosen].astype(np.int64),
        {name: _unit(vectors) for name, vectors in sampled.items()},
        {name: _unit(mean) for name, mean in means.items()},
    )


def curves(found: Sequence[Places], seed: int) -> dict[str, dict[str, Curve]]:
    """By kind of pair and by source; neighbors are those of the first source's means. Empty curves are left out."""
    answer: dict[str, dict[str, Curve]] = {}
    for kind, partners in _partners(found, seed):
        counts = {name: PairCounts() for name in found[0].vectors}
        for i, j in enumerate(partners):
            one, other = found[i], found[j]
            same = one.labels[:, None] == other.labels[None]
            apart = ~np.eye(len(one.labels), dtype=bool) if i == j else np.ones(same.shape, bool)
            for name, counter in counts.items():
                counter.add((one.vectors[name] @ other.vectors[name].T)[apart], same[apart])
        drawn = {name: counter.curve() for name, counter in counts.items()}
        if any(drawn.values()):
            answer[kind] = {name: curve for name, curve in drawn.items() if curve is not None}
    return answer


def _partners(found: Sequence[Places], seed: int) -> Iterator[tuple[str, list[int]]]:
    count = len(found)
    yield KINDS[0], list(range(count))
    if count < 2:
        return
    means = np.stack([next(iter(one.means.values())) for one in found])
    similarity = means @ means.T
    np.fill_diagonal(similarity, -np.inf)
    yield KINDS[1], similarity.argmax(axis=1).tolist()
    yield KINDS[2], derangement(count, torch.Generator().manual_seed(seed)).tolist()


def _sampled(map_: Array, down: Array, across: Array) -> Array:
    """Bilinear samples [P, C] of a map [C, h, w] at fractions of its height and width."""
    height, width = map_.shape[1:]
    y, x = np.clip(down * height - 0.5, 0, height - 1), np.clip(across * width - 0.5, 0, width - 1)
    top, left = y.astype(np.intp), x.astype(np.intp)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    v, u = (y - top).astype(np.float32), (x - left).astype(np.float32)
    upper = map_[:, top, left] * (1 - u) + map_[:, top, right] * u
    lower = map_[:, bottom, left] * (1 - u) + map_[:, bottom, right] * u
    samples: Array = (upper * (1 - v) + lower * v).T
    return samples


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-10)
    return unit.astype(np.float32)
