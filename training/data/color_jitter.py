"""An image under other light: brighter, in other colors, gray or blurred, by parameters that are given.

Knows nothing of networks or batches, nor of how the parameters are drawn. Of a batch of tensors: `augment.relight`.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from models.types import Array


@dataclass(frozen=True)
class Photometric:
    """Changes of light, in this order; None leaves a step out.

    brightness, contrast, saturation  factors: 1 changes nothing
    hue                               share of the color circle, either way
    blur                              σ of a Gaussian, in pixels
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    gray: bool = False
    blur: float | None = None


def color_jitter(image: Array, light: Photometric) -> Array:
    """The image uint8 [H, W, 3] under other light."""
    seen = Image.fromarray(image)
    for enhance, factor in (
        (ImageEnhance.Brightness, light.brightness),
        (ImageEnhance.Contrast, light.contrast),
        (ImageEnhance.Color, light.saturation),
    ):
        if factor is not None:
            seen = enhance(seen).enhance(factor)
    if light.hue is not None:
        hue, saturation, value = seen.convert("HSV").split()
        turned = np.asarray(hue) + np.uint8(round(light.hue * 255) % 256)  # wraps around, as hue does
        seen = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
    if light.gray:
        seen = seen.convert("L").convert("RGB")
    if light.blur is not None:
        seen = seen.filter(ImageFilter.GaussianBlur(light.blur))
    return np.asarray(seen)
