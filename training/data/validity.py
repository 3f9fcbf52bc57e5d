"""Where an image holds data, on any grid: no-data, NaN and what is transparent take no part in anything.

Knows nothing of files, networks or methods. None stands for "everywhere", and then nothing is computed or drawn: a
folder in which every pixel holds data gives what it gave without this file, to the bit.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.types import Array
from training.data.label_maps import IGNORED


def cells(valid: Array | None, grid: tuple[int, ...]) -> Array | None:
    """Which cells of a grid hold data in at least half of their pixels: bool [h, w]; None: all of them.

    valid  bool [H, W] of any size: where the cells are the smaller ones, a cell is what its pixel is
    """
    if valid is None:
        return None
    share = Image.fromarray(valid.astype(np.uint8) * 255).resize((grid[1], grid[0]), Image.Resampling.BOX)
    found: Array = np.asarray(share) > 127
    return None if found.all() else found


def ignored(labels: Array, valid: Array | None) -> Array:
    """A label map uint8 [H, W] that says nothing where the image holds no data; `valid` may be of another size."""
    known = cells(valid, labels.shape)
    return labels if known is None else np.where(known, labels, IGNORED).astype(labels.dtype)


def rows(maps: Tensor, valid: Array | None) -> Tensor:
    """The cells of a map [C, h, w] that hold data, as rows: [n, C]."""
    found = maps.flatten(1).T
    known = cells(valid, maps.shape[1:])
    return found if known is None else found[torch.from_numpy(known.ravel())]


def stacked(masks: list[Array | None], grid: tuple[int, int]) -> Tensor | None:
    """Masks bool [h, w] of several images as bool [B, h, w]; None where all of them are."""
    if all(mask is None for mask in masks):
        return None
    return torch.from_numpy(np.stack([np.ones(grid, bool) if mask is None else mask for mask in masks]))


def draw(valid: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Random places that hold data, each drawn by itself: int64 [B, count] of valid bool [B, n], some of every row."""
    return torch.multinomial(valid.cpu().float(), count, replacement=True, generator=generator).to(valid.device)


def mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of the values [...] that are of valid places, bool [...]; 0 where there are none."""
    if valid is None:
        return values.mean()
    return (values * valid).sum() / valid.sum().clamp(min=1)
