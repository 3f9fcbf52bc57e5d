"""Which regions a view shows: maps of ids, cropped as the view's pixels are.

Knows nothing of networks, or of how views are drawn.
"""

import torch
from torch import Tensor

from training.data.augment import crop
from training.data.regions import RegionCache, signed


def region_maps(cache: RegionCache, rows: Tensor, scale: int | Tensor) -> Tensor:
    """The ids of some of the cache's images, as maps that can be cropped: float32 [B, 1, H, W], -1 where no data is.

    rows   int64 [B]
    scale  one for all of them, or int64 [B]
    """
    at = scale.numpy() if isinstance(scale, Tensor) else scale
    return torch.from_numpy(signed(cache.regions[rows.numpy(), at]).astype("float32"))[:, None]


def shown_regions(maps: Tensor, crops: Tensor, grid: tuple[int, int]) -> Tensor:
    """The id at the middle of every cell of the views: int64 [B, *grid].

    maps   of `region_maps`
    crops  float [B, 2, 3], of `augment.draw_crops`
    """
    return crop(maps, crops, grid, nearest=True)[:, 0].long()
