"""How like one place of an image every other place is, or every place of another image, in the network's own terms.

Knows nothing of clusters, files or networks: a code on the patch grid in, cosines at any size out.
"""

from collections.abc import Sequence

import numpy as np

from models import assign
from models.assign import Interpolation, upsampled
from models.types import WHOLE, Array, Box

LIKE = 0.5  # cosine from which a pixel counts as like the one that was pointed at
_EPS = 1e-10


def similarity(
    code: Array, at: tuple[int, int], size: tuple[int, int], box: Box = WHOLE, interpolation: Interpolation = "bilinear"
) -> Array:
    """Cosine of every pixel's code with that of the pixel `at`.

    code     float32 [D, h, w]
    at       (y, x) in pixels of the answer;  size, box, interpolation  as in assign.labels
    returns  float32 [H, W], -1..1; exactly what upsampling the code, normalizing and multiplying gives

    Raises ValueError when `at` is outside. Source: STEGO (arXiv:2203.08414), figure 2.
    """
    return likeness(code_of(code, at, size, box, interpolation), code, size, box, interpolation)


def code_of(
    code: Array, at: tuple[int, int], size: tuple[int, int], box: Box = WHOLE, interpolation: Interpolation = "bilinear"
) -> Array:
    """The code of the pixel `at`, float32 [D]; everything is as in `similarity`."""
    y, x = at
    if not (0 <= y < size[0] and 0 <= x < size[1]):
        raise ValueError(f"the pixel x = {x}, y = {y} is outside of {size[1]}×{size[0]}")
    top, left, height, width = box
    cell = (top + y / size[0] * height, left + x / size[1] * width, height / size[0], width / size[1])
    return next(strip for _, strip in upsampled(code, (1, 1), cell, interpolation))[:, 0, 0]


def likeness(
    place: Array, code: Array, size: tuple[int, int], box: Box = WHOLE, interpolation: Interpolation = "bilinear"
) -> Array:
    """Cosine float32 [H, W] of every pixel's code with that of a place, float32 [D], of whichever image."""
    place = place / max(float(np.linalg.norm(place)), _EPS)
    products = np.einsum("d,dhw->hw", place, code)[None]
    return assign.similarity(products, code, size, box, interpolation)


def alike(meant: Sequence[Array], other: Sequence[Array] = (), threshold: float = LIKE) -> Array:
    """bool [H, W]: pixels like one that is meant, and less like all that are not.

    meant, other  cosines float32 [H, W] with each pixel that was pointed at, one at least that is meant
    """
    likest: Array = np.maximum.reduce(list(meant))
    mask: Array = likest >= threshold
    for cosines in other:
        mask = mask & (likest > cosines)
    return mask


def nearest(centroids: Array, most: int) -> list[list[tuple[int, float]]]:
    """For every one of centroids [K, D] the nearest others by cosine, `most` of them: (id, cosine), best first."""
    rows = centroids / np.linalg.norm(centroids, axis=1, keepdims=True).clip(1e-12)
    cosines = np.clip(rows @ rows.T, -1, 1)
    np.fill_diagonal(cosines, -2)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(most, len(rows) - 1)]
    return [[(int(j), round(float(cosines[i, j]), 4)) for j in order[i]] for i in range(len(rows))]
