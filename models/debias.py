"""Directions of a code that say where a place is, whatever is there; and codes without them.

Knows nothing of networks, images or files: what a network says of an image of one color in, directions out.

For comparing places of different images, where it should not matter in which corner they lie. Within one image it may:
labels are made of the whole code.

Source: INSID3 (arXiv:2603.28480), positional debiasing.
"""

from typing import Literal

import numpy as np

from models.errors import TesseraError
from models.types import Array

Asked = int | Literal["auto"]

_MOST = 0.99  # of the variance between places: the drop that `auto` looks for comes before what is beyond
_LEAST = 1e-4  # root mean square along a direction, of codes of length 1: less is rounding
_EPS = 1e-12


def directions(said: Array, asked: Asked) -> Array:
    """Directions along which what a network says of an image of one color differs from place to place.

    said     float [D, h, w]
    asked    how many, 1 or more; auto: those before the largest drop from one singular value to the next, or none
    returns  float32 [D, r], columns of length 1 at right angles, the one along which places differ most first

    Raises TesseraError where there are fewer.
    """
    flat = said.reshape(len(said), -1).astype(np.float64)
    unit = flat / np.maximum(np.linalg.norm(flat, axis=0), _EPS)
    vectors, values, _ = np.linalg.svd(unit - unit.mean(axis=1, keepdims=True), full_matrices=False)
    there = min(int((values > _LEAST * flat.shape[1] ** 0.5).sum()), len(said) - 1)
    if asked == "auto":
        asked = _before_the_drop(values[: there + 1]) if there else 0
    elif not 1 <= asked <= there:
        grid = f"{said.shape[2]}×{said.shape[1]}"
        raise TesseraError(
            f"debias = {asked}: of an image of one color {len(said)} channels at {grid} places differ along {there}"
            f" directions; {f'write 1 to {there}, auto, or 0' if there else 'write auto or 0'}, which takes none out"
        )
    return vectors[:, :asked].astype(np.float32)


def _before_the_drop(values: Array) -> int:
    """How many of singular values, which fall, come before the largest drop among those that make up _MOST."""
    shares = np.cumsum(values**2)
    looked_at = min(int(np.searchsorted(shares, _MOST * shares[-1])) + 1, len(values) - 1)
    return int((values[1 : looked_at + 1] / values[:looked_at]).argmin()) + 1


def without(code: Array, directions: Array) -> Array:
    """Codes float32 [D, …] less what they have along directions float32 [D, r]: of the same shape."""
    flat = code.reshape(len(code), -1)
    rest: Array = (flat - directions @ (directions.T @ flat)).reshape(code.shape)
    return rest
