"""Codes of regions: a network's answer, averaged over each region of an image.

Knows nothing of how regions are cut.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.data.regions import RegionCache, signed


def pool(maps: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean of every map over every region, and how many cells each region has.

    maps     float [B, D, h, w]
    ids      int64 [B, h, w]      region ids 0..count-1; negative cells belong to no region
    returns  float [B, count, D], float [B, count]
    Regions without a cell have mean 0.
    """
    batch, depth = maps.shape[:2]
    flat = maps.flatten(2).transpose(1, 2).reshape(-1, depth)
    offset = torch.arange(batch, device=ids.device)[:, None] * count
    index = (ids.flatten(1) + offset).flatten()
    inside = (ids.flatten() >= 0).to(maps.dtype)
    index = index.clamp(min=0)
    sums = maps.new_zeros(batch * count, depth).index_add(0, index, flat * inside[:, None])
    cells = maps.new_zeros(batch * count).index_add(0, index, inside)
    means = sums / cells.clamp(min=1)[:, None]
    return means.reshape(batch, count, depth), cells.reshape(batch, count)


@dataclass(frozen=True)
class RegionCodes:
    """One row per region of every image at one or more scales.

    codes   float32 [R, D]    mean code
    center  float32 [R, 2]    (y, x) of the region's mean pixel, 0..1
    image, scale, region  int64 [R]   where the row comes from
    """

    codes: Tensor
    center: Tensor
    image: Tensor
    scale: Tensor
    region: Tensor

    def at(self, scale: int) -> "RegionCodes":
        """The rows of one scale."""
        keep = self.scale == scale
        return RegionCodes(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def region_codes(code: Callable[[Tensor], Tensor], cache: RegionCache, *, batch_size: int = 16) -> RegionCodes:
    """Mean code and place of every region.

    code   pixels uint8 [B, H, W, 3] -> code float [B, D, h, w]
    """
    rows: list[RegionCodes] = []
    for start in range(0, len(cache), batch_size):
        pixels = torch.from_numpy(np.array(cache.images[start : start + batch_size]))
        with torch.inference_mode():
            maps = code(pixels).float().cpu()
        grid = tuple(maps.shape[-2:])
        down = torch.linspace(0, 1, grid[0])[:, None].expand(grid)
        along = torch.linspace(0, 1, grid[1]).expand(grid)
        place = torch.stack([down, along]).expand(len(maps), -1, -1, -1)
        for s in range(cache.regions.shape[1]):
            ids = coarse(cache.regions[start : start + batch_size, s], grid)
            means, cells = pool(torch.cat([maps, place], dim=1), ids, int(cache.counts[:, s].max()))
            image, region = (cells > 0).nonzero(as_tuple=True)
            rows.append(
                RegionCodes(
                    codes=means[image, region, :-2],
                    center=means[image, region, -2:],
                    image=image + start,
                    scale=torch.full_like(image, s),
                    region=region,
                )
            )
    fields = RegionCodes.__dataclass_fields__
    return RegionCodes(*(torch.cat([getattr(row, name) for row in rows]) for name in fields))


def place(codes: RegionCodes, weight: float, mean: Tensor | None = None) -> Tensor:
    """Codes of length 1 with two position columns, weight × (row, |column|) about −1..1: float32 [R, D + 2].

    The column is folded at the middle: pretraining mirrors its views, so left and right are the same to the
    code, and should be to the place. `mean` is taken from the codes first.
    """
    unit = F.normalize(codes.codes if mean is None else codes.codes - mean, dim=1)
    row = 2 * codes.center[:, :1] - 1
    column = 2 * (2 * codes.center[:, 1:] - 1).abs() - 1
    return torch.cat([unit, weight * row, weight * column], dim=1)


def coarse(ids: NDArray[np.uint16], grid: tuple[int, ...]) -> Tensor:
    """The id at the middle of every cell of a coarser grid, -1 without data.  uint16 [B, H, W] -> int64 [B, h, w]"""
    rows = ((np.arange(grid[0]) + 0.5) * ids.shape[1] / grid[0]).astype(int)
    columns = ((np.arange(grid[1]) + 0.5) * ids.shape[2] / grid[1]).astype(int)
    return torch.from_numpy(signed(ids[:, rows][:, :, columns]).astype(np.int64))
