"""Pixels to the size a network wants, and the way back.

Knows nothing of files, clusters or networks. Sizes are (H, W) everywhere.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from models.types import WHOLE, Array, Box

Band = Annotated[int, Field(ge=1, le=65535)]  # as TIFF counts them
Side = Annotated[int, Field(ge=1, le=8192)]
Mean = Annotated[float, Field(ge=-1000, le=1000)]
Std = Annotated[float, Field(ge=1e-6, le=1000)]
MAX_INPUT_PX = 2**25  # of the largest image a network can be given
_STRIP_PX = 2**20  # pixels of an image that Pillow gets at once: it copies them, at 4 bytes each


class Normalization(BaseModel):
    """What is taken off every pixel's channels (R, G, B) and what they are then divided by, as fractions of 255."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class InputSpec(BaseModel):
    """How an image becomes the network's input; part of the manifest.

    size         (H, W) in pixels
    resize       short_side: the short side becomes min(size), aspect kept, any size that is a multiple of
                 `multiple`; letterbox: aspect kept inside exactly `size`, the rest repeats the border;
                 stretch: exactly `size`
    max_side_px  the long side never exceeds this; beyond it the aspect gives way
    bands        which samples of a multi-band image the network was trained on, as gray (one) or R, G, B (three),
                 from 1; None, and then absent from the manifest: those the file itself says
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[Side, Side]
    resize: Literal["short_side", "letterbox", "stretch"] = "short_side"
    multiple: int = Field(8, ge=1, le=1024)
    max_side_px: Side = 2048
    bands: tuple[Band] | tuple[Band, Band, Band] | None = None

    @property
    def largest(self) -> tuple[int, int]:
        """(H, W) of the largest image that can come of it: a panorama's."""
        return fitted_size((1, self.max_side_px), self) if self.resize == "short_side" else self.size

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.resize == "short_side" and self.multiple > self.max_side_px:
            raise ValueError(f"sides that are multiples of {self.multiple} exceed max_side_px = {self.max_side_px}")
        if (pixels := self.largest[0] * self.largest[1]) > MAX_INPUT_PX:
            height, width = self.largest
            raise ValueError(
                f"size and max_side_px let an image become {width}×{height}, {pixels / 1e6:.1f} Mpx; the limit is"
                f" {MAX_INPUT_PX / 1e6:.1f}"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `bands` where there are none: readers older than they are refuse keys they do not know."""
        written: dict[str, Any] = write(self)
        if self.bands is None:
            written.pop("bands", None)
        return written


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


def fit(image: Array, spec: InputSpec, source: tuple[int, int] | None = None) -> Fit:
    """The image at the size the network wants (bilinear, antialiased).

    image   RGB uint8 [h, w, 3]
    source  (H, W) of the picture, where the image is a smaller level of it; None: the image's own
    """
    source = source or (int(image.shape[0]), int(image.shape[1]))
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
    """A uint8 image [H, W, 3] or map [H, W] at another size (H, W), bilinear with antialiasing.

    A large image is brought to its width in strips and then to its height, which are the two passes, and the rounding
    in between, that Pillow makes of it: the same pixels, without Pillow's copy of the whole. What Pillow may bring to
    its height first (tall images, and flattened ones) is left to it.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    half = 2 * size[0] <= height and 2 * size[1] <= width
    width_first = height <= 1.8 * width and size[1] * height <= 1.03 * size[0] * width
    if height * width > 2 * _STRIP_PX and half and width_first:
        step = max(1, _STRIP_PX // width)
        narrow = np.empty((height, size[1], *image.shape[2:]), np.uint8)
        for top in range(0, height, step):
            strip = image[top : top + step]
            narrow[top : top + step] = _resize(strip, (len(strip), size[1]))
        image = narrow
    return _resize(image, size)


def _resize(image: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
