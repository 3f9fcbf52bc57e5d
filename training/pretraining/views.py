"""What a step of pretraining sees: views of some images, with the regions that each of them shows.

Knows nothing of networks or objectives. Two larger views of every image, and small ones where the options ask for them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.augment import ViewOptions, planes, view
from training.data.region_views import region_maps, shown_regions
from training.data.regions import RegionCache
from training.pretraining.options import PretrainOptions

LARGER = 2
_CELL = 4  # pixels


@dataclass(frozen=True)
class RegionBatch:
    """Views of a batch, all images' first ones first, then their second ones, and so on."""

    views: Tensor  # float [2B, 3, H, W], 0..1
    ids: Tensor  # int64 [2B, h, w] on the code's grid, -1 where no data is
    small_views: Tensor  # float [mB, 3, H', W'], 0..1; m may be 0
    small_ids: Tensor  # int64 [mB, h', w']
    count: int  # more than any id
    images: Tensor  # int64 [B] rows of the cache
    scales: Tensor  # int64 [B] scale drawn for each
    draw: int  # what else is drawn depends on this


def images_of(step: int, count: int, options: PretrainOptions) -> list[int]:
    """Which of `count` images a step sees: every pass over them is a permutation; a batch may reach into the next."""
    size, rows = options.batch_size, list[int]()
    while len(rows) < size:
        turn, at = divmod(step * size + len(rows), count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(options.seed * 1_000_003 + turn))
        rows += order[at : at + size - len(rows)].tolist()
    return rows


def draw(cache: RegionCache, options: PretrainOptions, step: int) -> RegionBatch:
    """The batch of one step: a function of (seed, step), so a resumed run goes on as if never stopped."""
    size, rows = options.batch_size, images_of(step, len(cache), options)
    own = options.seed * 1_000_003 + step
    generator = torch.Generator().manual_seed(own)
    scales = torch.randint(cache.regions.shape[1], (size,), generator=generator)
    images, regions = planes(cache.images[rows]), region_maps(cache, torch.tensor(rows), scales)
    views, ids = _seen(images, regions, options.views, LARGER, generator)
    small = (torch.empty(0, 3, _CELL, _CELL), torch.empty(0, 1, 1, dtype=torch.int64))
    if options.small is not None:
        small = _seen(images, regions, options.small.views, options.small.count, generator)
    return RegionBatch(views, ids, *small, int(cache.counts.max()), torch.tensor(rows), scales, own)


def _seen(
    images: Tensor, regions: Tensor, options: ViewOptions, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """So many views of every image and the ids in each: float [count B, 3, H, W], int64 [count B, h, w]."""
    grid = (options.size[0] // _CELL, options.size[1] // _CELL)
    views, ids = [], []
    for _ in range(count):
        seen, crops = view(images, options, generator)
        views.append(seen)
        ids.append(shown_regions(regions, crops, grid))
    return torch.cat(views), torch.cat(ids)
