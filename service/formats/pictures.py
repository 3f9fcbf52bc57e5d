"""Label maps, overlays, colors and heat maps as picture files.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from __future__ import annotations

import numpy as np

from models import palette
from models.io.encode import encode, encode_labels
from models.types import Array
from service.formats.registry import renders
from service.formats.result import SegmentationResult


@renders("image/png", name="png")
def png(result: SegmentationResult) -> bytes:
    """Palette PNG: one byte a pixel, the pixel's value is the cluster id."""
    return encode_labels(result.labels, result.style.colors)


@renders("image/jpeg", name="overlay", photo=True)
def overlay(result: SegmentationResult) -> bytes:
    """The photo with its clusters' colors over it, as JPEG."""
    return encode(_overlaid(result), "jpeg")


@renders("image/webp", name="overlay", photo=True)
def overlay_webp(result: SegmentationResult) -> bytes:
    """The same picture as WebP."""
    return encode(_overlaid(result), "webp")


@renders("image/png", name="color", accept=False)
def color(result: SegmentationResult) -> bytes:
    """The clusters' colors alone: RGB, or RGBA where some clusters are not drawn."""
    return encode(palette.colorize(result.labels, result.style.colors, result.drawn), "png")


def heat(cosines: Array) -> bytes:
    """Similarities float32 [H, W], -1..1, as a palette PNG whose colors go from cold to hot."""
    return encode_labels(np.rint((cosines + 1) * 127.5).astype(np.uint8), palette.heat())


def _overlaid(result: SegmentationResult) -> Array:
    assert result.image is not None
    return palette.overlay(result.image, result.labels, result.style.colors, result.options.alpha, result.drawn)
