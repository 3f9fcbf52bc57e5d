"""Classes by example: a few places that a person pointed at → every pixel to the class whose prototype is nearest.

Knows nothing of images, files or networks: codes on the patch grid and what was said of them in, score maps out. These
are dot products with the code, so that they go the way of the network's own scores: interpolated, compared, refined
(`assign`, `refine`), without another pass of the network.

Source: class means of unit codes, nearest by cosine: Snell et al., Prototypical Networks (arXiv:1703.05175).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.assign import Interpolation, axes
from models.native.bindings import Axis
from models.types import WHOLE, Array, Box

_EPS = 1e-12
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


@dataclass(frozen=True)
class Classifier:
    """What examples and clusters make together; made once for every change of them, used for every image.

    ids        uint8 [M], ascending: the class of each score map
    centroids  float32 [K, D]
    """

    ids: Array
    _rows: Array

    @classmethod
    def fit(cls, centroids: Array, classes: Sequence[Taught], examples: Sequence[Example]) -> "Classifier | None":
        """Of classes with an example or a cluster; None where there is none."""
        rows, ids = [], []
        for one in sorted(classes):
            own = [e.code for e in examples if e.class_id == one.id and not e.negative]
            own = own or [centroids[list(one.clusters)].mean(0)] if own or one.clusters else []
            if own:
                mean = np.mean(own, axis=0)
                rows.append(mean / max(float(np.linalg.norm(mean)), _EPS))
                ids.append(one.id)
        return cls(np.array(ids, np.uint8), np.array(rows, np.float32)) if rows else None

    def scores(self, code: Array, scores: Array, box: Box = WHOLE) -> Array:
        """float32 [M, h, w] of one image: as the network's own scores, one map for each of `ids`.

        code    float32 [D, h, w];  scores  float32 [K, h, w], of the network
        box     the part of the grid that the image fills
        """
        found: Array = np.einsum("md,dhw->mhw", self._rows, code)
        return found


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
