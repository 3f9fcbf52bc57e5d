"""Label maps, overlays, colors and heat maps as picture files.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from models import palette
from models.io.encode import encode, npy
from models.io.png import encode_palette
from models.types import Array
from service.formats.registry import renders

if TYPE_CHECKING:
    from service.formats.result import Result


@renders("image/png", name="png")
def png(result: Result) -> bytes:
    """Palette PNG: one byte a pixel, the pixel's value is the cluster id."""
    return encode_palette(result.labels, result.style.colors)


@renders("image/jpeg", name="overlay", photo=True)
def overlay(result: Result) -> bytes:
    """The photo with its clusters' colors over it, as JPEG."""
    return encode(_overlaid(result), "jpeg")


@renders("image/webp", name="overlay", photo=True)
def overlay_webp(result: Result) -> bytes:
    """The same picture as WebP."""
    return encode(_overlaid(result), "webp")


@renders("image/png", name="color", accept=False)
def color(result: Result) -> bytes:
    """The clusters' colors alone: a palette PNG, transparent where clusters are not drawn."""
    drawn, alpha = _drawn(result), None
    if drawn is not None:
        alpha = np.zeros(len(result.style.colors), np.uint8)
        alpha[list(drawn)] = 255
    return encode_palette(result.labels, result.style.colors, alpha)


def heat(cosines: Array, format: Literal["png", "npy"]) -> bytes:
    """Similarities float32 [H, W], -1..1, as a palette PNG whose colors go from cold to hot, or as numpy's file."""
    if format == "npy":
        return npy(cosines)
    return encode_palette(np.rint((cosines + 1) * 127.5).astype(np.uint8), palette.heat())


def _overlaid(result: Result) -> Array:
    assert result.image is not None
    return palette.overlay(result.image, result.labels, result.style.colors, result.options.alpha, _drawn(result))


def _drawn(result: Result) -> frozenset[int] | None:
    """The clusters to draw, None for all: those asked for by name, hidden or not; else all but the hidden."""
    if (only := result.options.drawn()) is not None:
        return frozenset(int(result.table[i]) for i in only)
    hidden = result.style.hidden
    return frozenset(range(len(result.style.names))) - hidden if hidden else None
