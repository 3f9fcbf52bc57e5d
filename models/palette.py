"""Cluster ids to colors, and label maps to pictures.

Knows nothing of files or networks. A color belongs to a cluster: it is stored with it in the manifest,
and this file only proposes the first ones.
"""

from collections.abc import Collection
from functools import lru_cache

import numpy as np

from models.native import bindings
from models.types import Array

# What a deuteranope and a protanope see of linear RGB. Source: Machado, Oliveira & Fernandes 2009, severity 1.
_DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
_PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
# Linear RGB to the responses of three cones, and those (cube roots) to lightness and two opponent axes.
# Source: Ottosson 2020, OKLab: unlike CIE L*a*b*, its distances hold among blues as well.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OPPONENT = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@lru_cache(maxsize=8)
def _proposed(k: int) -> Array:
    steps = np.array([0, 51, 102, 153, 204, 255])
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    seen = [_lab(rgb), _lab(rgb, _DEUTERANOPIA), _lab(rgb, _PROTANOPIA)]
    lightness = seen[0][:, 0]
    usable = (lightness > 32) & (lightness < 95)  # legible on white and on black
    rgb, seen = rgb[usable], [view[usable] for view in seen]

    def distance(index: int) -> Array:
        """To every candidate, as the eye that tells them apart worst sees it; red-green vision counts less."""
        apart = [np.linalg.norm(view - view[index], axis=1) for view in seen]
        nearest: Array = np.minimum(apart[0], 1.6 * np.minimum(apart[1], apart[2]))
        return nearest

    first = int(np.argmin(np.abs(rgb - np.array([0, 102, 204])).sum(axis=1)))
    chosen, nearest = [first], distance(first)
    while len(chosen) < k:
        following = int(np.argmax(nearest))
        if nearest[following] <= 0:  # more clusters than candidates: begin again
            nearest = distance(chosen[len(chosen) % len(rgb)])
            following = int(np.argmax(nearest))
        chosen.append(following)
        nearest = np.minimum(nearest, distance(following))
    return rgb[chosen].astype(np.uint8)


def distinct(k: int) -> Array:
    """k colors far apart, for color-blind eyes too; the first of k + 1 are the k.

    returns  uint8 [k, 3]
    """
    return _proposed(k).copy()


def apart(others: Array) -> Array:
    """A color as far as can be from others uint8 [n, 3], of those that `distinct` proposes: uint8 [3]."""
    proposed = _proposed(255)
    if not len(others):
        return distinct(1)[0]  # type: ignore[no-any-return]
    hues = np.array([0.6, 1, 1])  # what differs in lightness alone, red and dark red, is one color in people's words
    away = np.linalg.norm((_lab(proposed)[:, None] - _lab(others)[None]) * hues, axis=2).min(axis=1)
    farthest: Array = proposed[int(away.argmax())].copy()
    return farthest


def _lab(rgb: Array, vision: Array | None = None) -> Array:
    """OKLab × 100 [n, 3] of sRGB uint8 [n, 3], as an eye with `vision` sees it."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    if vision is not None:
        linear = np.clip(linear @ vision.T, 0, 1)
    lab: Array = 100 * np.cbrt(linear @ _CONES.T) @ _OPPONENT.T
    return lab


def to_hex(color: Array) -> str:
    """`#rrggbb` of uint8 [3]."""
    return "#" + "".join(f"{int(v):02x}" for v in color)


def from_hex(color: str) -> Array:
    """uint8 [3] of `#rrggbb`. Raises ValueError."""
    if len(color) != 7 or color[0] != "#":
        raise ValueError(f"{color!r} is not a color: write it as #rrggbb")
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8)


def overlay(
    image: Array, labels: Array, colors: Array, alpha: float = 0.5, only: Collection[int] | None = None
) -> Array:
    """The image with its clusters' colors over it.

    image    RGB uint8 [H, W, 3];  labels  uint8 [H, W];  colors  uint8 [K, 3];  alpha  opacity 0..1
    only     cluster ids to draw; elsewhere the image is untouched
    returns  uint8 [H, W, 3]
    """
    opacity = np.zeros(len(colors), np.uint16)
    opacity[list(range(len(colors)) if only is None else only)] = round(alpha * 256)
    paint = (colors.astype(np.uint16) * opacity[:, None] + 128).astype(np.uint16)
    keep = (256 - opacity).astype(np.uint16)
    if (compiled := bindings.blend(image, labels, keep, paint)) is not None:
        return compiled
    blended = image * keep[labels][..., None]
    blended += paint[labels]
    blended >>= 8
    return blended.astype(np.uint8)


@lru_cache(maxsize=1)
def heat() -> Array:
    """From cold to hot: 256 colors whose lightness grows evenly. uint8 [256, 3]."""
    stops = np.array([[10, 10, 40], [60, 30, 120], [150, 45, 120], [225, 85, 75], [250, 165, 70], [253, 250, 200]])
    at = np.linspace(0, len(stops) - 1, 256)
    return (
        np.stack([np.interp(at, np.arange(len(stops)), channel) for channel in stops.T], axis=1)
        .round()
        .astype(np.uint8)
    )
