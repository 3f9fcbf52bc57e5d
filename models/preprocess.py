"""Pixels to the size a network wants, and the way back.

Knows nothing of files, clusters or networks. Sizes are (H, W) everywhere.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from models.types import WHOLE, Array, Box


class InputSpec(BaseModel):
    """How an image becomes the network's input; part of the manifest.

    size         (H, W) in pixels
    resize       short_side: the short side becomes min(size), aspect kept, any size that is a multiple of
                 `multiple`; letterbox: aspect kept inside exactly `size`, the rest repeats the border;
                 stretch: exactly `size`
    max_side_px  the long side never exceeds this; beyond it the aspect gives way
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int]
    resize: Literal["short_side", "letterbox", "stretch"] = "short_side"
    multiple: int = Field(8, ge=1)
    max_side_px: int = Field(2048, ge=1)


@dataclass(frozen=True)
class Fit:
    """An image at the network's size, with what is needed to find the way back.

    pixels  uint8 [h_in, w_in, 3]
    source  (H, W) of the image it was made from
    box     the part of `pixels` the source fills: top, left, height, width as fractions
    """

    pixels: Array
    source: tuple[int, int]
    box: Box = WHOLE

    @property
    def filled(self) -> Array:
        """The part of `pixels` that the source fills: a view, uint8 [h, w, 3]."""
        height, width = self.pixels.shape[:2]
        top, left = round(self.box[0] * height), round(self.box[1] * width)
        return self.pixels[top : top + round(self.box[2] * height), left : left + round(self.box[3] * width)]


def fitted_size(source: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """The (H, W) an image of size `source` gets under `spec`, without touching a pixel."""
    if spec.resize != "short_side":
        return spec.size
    scale = min(spec.size) / min(source)

    def side(length: int) -> int:
        wanted = min(length * scale, spec.max_side_px)
        return max(spec.multiple, round(wanted / spec.multiple) * spec.multiple)

    return side(source[0]), side(source[1])


def fit(image: Array, spec: InputSpec) -> Fit:
    """The image at the size the network wants (bilinear, antialiased).

    image  RGB uint8 [H, W, 3]
    """
    source = (int(image.shape[0]), int(image.shape[1]))
    height, width = fitted_size(source, spec)
    if spec.resize != "letterbox":
        return Fit(resize(image, (height, width)), source)
    scale = min(height / source[0], width / source[1])
    inner = (max(1, round(source[0] * scale)), max(1, round(source[1] * scale)))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    pads = ((top, height - inner[0] - top), (left, width - inner[1] - left), (0, 0))
    pixels = np.pad(resize(image, inner), pads, mode="edge")
    return Fit(pixels, source, (top / height, left / width, inner[0] / height, inner[1] / width))


def resize(image: Array, size: tuple[int, int]) -> Array:
    """A uint8 image [H, W, 3] or map [H, W] at another size (H, W), bilinear with antialiasing."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
