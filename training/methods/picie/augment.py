"""Two views of an image whose every parameter is known beforehand.

Knows nothing of networks or losses. What happens to an image in an epoch is a pure function of (seed, epoch,
image): clustering, labelling and training of one epoch see the same pixels, and so does a resumed run.

Source: PiCIE (arXiv:2103.17070) §3.2; ranges of the published code. Two of its slips are not copied: a name
misspelt so that grayscale never happened, and a blur whose radius came out negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.config.recipe import Section
from training.data.color_jitter import Photometric


class AugmentSection(Section):
    """How far a view may differ from its image; the published values."""

    jitter: float = 0.3  # brightness, contrast, saturation: factors 1 ± this, each at 0.8
    hue: float = 0.1  # share of the color circle, either way, at 0.8
    gray: float = 0.2  # how often
    blur: float = 0.5  # how often
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels of the image at twice the training size
    min_scale: float = 0.5  # a crop's side, as a share of the image's
    mirror: float = 0.5  # how often


@dataclass(frozen=True)
class Geometric:
    """A square crop and perhaps its mirror image.

    scale        the crop's side as a share of the image's
    row, column  where it lies in the room that is left, 0..1
    """

    scale: float = 1.0
    row: float = 0.0
    column: float = 0.0
    mirror: bool = False


@dataclass(frozen=True)
class Views:
    """Both views' light, and the crop they share."""

    first: Photometric
    second: Photometric
    crop: Geometric


def draw_views(options: AugmentSection, seed: int, epoch: int, image: int) -> Views:
    """The views of one image in one epoch."""
    rng = np.random.default_rng([seed, epoch, image])
    first, second = _draw_light(options, rng), _draw_light(options, rng)
    crop = Geometric(
        scale=rng.uniform(options.min_scale, 1.0),
        row=rng.uniform(),
        column=rng.uniform(),
        mirror=rng.uniform() < options.mirror,
    )
    return Views(first, second, crop)


def _draw_light(options: AugmentSection, rng: np.random.Generator) -> Photometric:
    def maybe(chance: float, low: float, high: float) -> float | None:
        value = rng.uniform(low, high)  # drawn either way: one switch changes no other draw
        return value if rng.uniform() < chance else None

    near, far = 1 - options.jitter, 1 + options.jitter
    return Photometric(
        brightness=maybe(0.8, near, far),
        contrast=maybe(0.8, near, far),
        saturation=maybe(0.8, near, far),
        hue=maybe(0.8, -options.hue, options.hue),
        gray=rng.uniform() < options.gray,
        blur=maybe(options.blur, *options.blur_sigma),
    )


def resized_crop(maps: Tensor, crops: Sequence[Geometric], size: int) -> Tensor:
    """Every map's crop at a new size: float [B, C, S, S] → [B, C, size, size], bilinear.

    Works on images as on feature maps: the same crop shows the same things on both, up to half a cell.
    """
    side = maps.shape[-1]
    found = []
    for one, how in zip(maps, crops, strict=True):
        inner = max(1, int(how.scale * side))
        top, left = round((side - inner) * how.row), round((side - inner) * how.column)
        part = one[None, :, top : top + inner, left : left + inner]
        part = F.interpolate(part, size=(size, size), mode="bilinear", align_corners=False)
        found.append(part.flip(-1) if how.mirror else part)
    return torch.cat(found)
