"""Images of any size → square crops of one size.

Knows nothing of networks or files: RGB uint8 [H, W, 3] in and out, or what is known of each pixel, [H, W].
"""

from typing import Literal

import numpy as np
from PIL import Image

from models.preprocess import resize
from models.types import Array

Interpolation = Literal["bilinear", "nearest"]


def square(image: Array, size: int, interpolation: Interpolation = "bilinear") -> Array:
    """The short side at `size` pixels, then the central square: uint8 [size, size, 3]; of bool [H, W] with nearest.

    bilinear is antialiased; nearest is what upstream STEGO's and CAUSE's code does to images.
    """
    height, width = image.shape[:2]
    scale = size / min(height, width)
    fitted = (max(size, int(height * scale)), max(size, int(width * scale)))
    if interpolation == "bilinear":
        image = resize(image, fitted)
    else:
        image = np.asarray(Image.fromarray(image).resize(fitted[::-1], Image.Resampling.NEAREST))
    top, left = round((fitted[0] - size) / 2), round((fitted[1] - size) / 2)
    return image[top : top + size, left : left + size]


def five(image: Array, ratio: float = 0.5) -> list[Array]:
    """The four corners and the center, each `ratio` of the image's sides.

    Source: STEGO (arXiv:2203.08414) §4.4, five-crop.
    """
    height, width = image.shape[:2]
    h, w = max(1, int(ratio * height)), max(1, int(ratio * width))
    middle = (round((height - h) / 2), round((width - w) / 2))
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w), middle]
    return [image[top : top + h, left : left + w] for top, left in corners]
