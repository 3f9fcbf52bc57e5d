"""Random views of a batch of images: crops, mirror images, other light.

Knows nothing of networks or losses: tensors in, tensors out. Every draw comes from the generator handed
in, so a run that is resumed sees the views it would have seen.
"""

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from models.types import Array

# In YIQ a turn of hue is a rotation of two axes: one product for the whole batch.
TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class ViewOptions(BaseModel):
    """How far a view may differ from its image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int] = (128, 128)
    area: tuple[float, float] = (0.1, 0.5)
    aspect: float = Field(default=1.33, ge=1, description="a crop is stretched by at most this factor, either way")
    mirror: float = Field(default=0.5, ge=0, le=1)
    jitter: float = Field(default=0.4, ge=0, lt=1, description="brightness, contrast, saturation: factors 1 ± this")
    gamma: float = Field(default=0.5, ge=0, description="brightness is raised to a power within e^±this")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="share of the full circle, either way")
    gray: float = Field(default=0.2, ge=0, le=1)
    blur: float = Field(default=0.3, ge=0, le=1)


def view(images: Tensor, options: ViewOptions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One view of every image, float [B, 3, *size], 0..1, and the crops that it shows.

    images  float [B, 3, H, W], 0..1
    """
    crops = draw_crops(len(images), options, generator)
    return relight(crop(images, crops, options.size), options, generator), crops


def planes(images: Array) -> Tensor:
    """Images uint8 [B, H, W, 3] as they are changed here: float32 [B, 3, H, W], 0..1."""
    return torch.from_numpy(images).movedim(-1, 1).float() / 255


def pixels(views: Tensor) -> Tensor:
    """Views float [B, 3, H, W], 0..1, as an exported network takes them: uint8 [B, H, W, 3]."""
    return (255 * views).round().to(torch.uint8).movedim(1, -1)


def draw_crops(count: int, options: ViewOptions, generator: torch.Generator) -> Tensor:
    """Affine maps from the view's frame to the image's, both -1..1: float [count, 2, 3]."""
    low, high = options.area
    area = low + (high - low) * torch.rand(count, generator=generator)
    stretch = torch.exp((2 * torch.rand(count, generator=generator) - 1) * math.log(options.aspect))
    wide = (area * stretch).sqrt().clamp(max=1)
    tall = (area / stretch).sqrt().clamp(max=1)
    x = (2 * torch.rand(count, generator=generator) - 1) * (1 - wide)
    y = (2 * torch.rand(count, generator=generator) - 1) * (1 - tall)
    turn = torch.where(torch.rand(count, generator=generator) < options.mirror, -1.0, 1.0)
    zero = torch.zeros(count)
    return torch.stack([torch.stack([wide * turn, zero, x], 1), torch.stack([zero, tall, y], 1)], 1)


def crop(maps: Tensor, crops: Tensor, size: tuple[int, int], *, nearest: bool = False) -> Tensor:
    """The maps as the views see them: float [B, C, H, W] -> [B, C, *size]. `nearest` for ids."""
    grid = F.affine_grid(crops.to(maps), [len(maps), maps.shape[1], *size], align_corners=False)
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(maps, grid, mode=mode, padding_mode="border", align_corners=False)


def relight(images: Tensor, options: ViewOptions, generator: torch.Generator) -> Tensor:
    """The images under other light: float [B, 3, H, W], 0..1 in and out."""
    count = len(images)

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, generator=generator)).to(images)[:, None, None, None]

    bright, contrast, saturation = (draw(1 - options.jitter, 1 + options.jitter) for _ in range(3))
    angle = draw(-options.hue, options.hue) * 2 * math.pi
    gray = (draw(0, 1) >= options.gray).to(images)
    blurred = draw(0, 1) < options.blur
    yiq = torch.einsum("ij,bjhw->bihw", TO_YIQ.to(images), images)
    power = draw(-options.gamma, options.gamma).exp()
    # All channels by one factor: hue and saturation are drawn below, and stay what they are here.
    bright = bright * yiq[:, :1].clamp(min=1e-3) ** (power - 1)
    luma = yiq[:, :1] * bright
    luma = (luma - luma.mean(dim=(2, 3), keepdim=True)) * contrast + luma.mean(dim=(2, 3), keepdim=True)
    chroma = yiq[:, 1:] * bright * saturation * gray
    i, q = chroma[:, :1], chroma[:, 1:]
    turned = torch.cat([luma, i * angle.cos() - q * angle.sin(), i * angle.sin() + q * angle.cos()], dim=1)
    relit = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(TO_YIQ).to(images), turned)
    soft = F.avg_pool2d(F.pad(relit, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.where(blurred, soft, relit).clamp(0, 1)
