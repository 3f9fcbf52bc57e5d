"""Label maps, overlays, colors and heat maps as picture files.

Knows nothing of HTTP, of networks, of where the image came from.
"""

import numpy as np

from models import palette
from models.io.encode import encode
from models.io.png import encode_gray, encode_palette
from models.types import Array
from service.formats.registry import renders
from service.formats.result import SegmentationResult


@renders("image/png", name="png", offset=True)
def png(result: SegmentationResult) -> bytes:
    """PNG whose pixels' values are cluster ids: with a palette, or gray for readers that turn a palette into colors."""
    labels, _, colors = result.stored
    if result.options.palette and labels.dtype == np.uint8:
        return encode_palette(labels, colors)
    return encode_gray(labels)


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
    """The clusters' colors alone: a palette PNG, transparent where no cluster is drawn."""
    alpha = None
    if (drawn := result.drawn) is not None:
        alpha = np.zeros(len(result.colors), np.uint8)
        alpha[list(drawn)] = 255
    return encode_palette(result.labels, result.colors, alpha)


@renders("image/png", name="confidence", accept=False, margin="full")
def confidence(result: SegmentationResult) -> bytes:
    """How clearly each pixel was decided: gray PNG, 0..255 for margins 0..1."""
    assert result.margin is not None
    return encode(np.rint(result.margin * 255).astype(np.uint8), "png")


def heat(cosines: Array) -> bytes:
    """Similarities float32 [H, W], -1..1, as a palette PNG whose colors go from cold to hot."""
    return encode_palette(np.rint((cosines + 1) * 127.5).astype(np.uint8), palette.heat())


def _overlaid(result: SegmentationResult) -> Array:
    assert result.image is not None
    return palette.overlay(result.image, result.labels, result.colors, result.options.alpha, result.drawn)
