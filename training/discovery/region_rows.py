"""A folder's regions as rows to cluster: their codes, places, textures and weights.

Knows nothing of how they are clustered, or of labels.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.types import Array
from training.data.regions import RegionCache, equalize, signed
from training.discovery.merging import RegionRows
from training.discovery.region_evidence import textures
from training.features.region_codes import RegionCodes, coarse, place

MOST = 12_000  # drawn from more: what belongs together is told by a sample


def sample(codes: RegionCodes, cache: RegionCache, *, position: float, contrast: float, seed: int) -> RegionRows:
    """Rows of at most 12,000 regions of one scale, drawn evenly, in the order of their images.

    codes     of one scale, `RegionCodes.at`
    position  weight of a region's place beside its code
    contrast  clip limit that the images were equalized with before they were cut; their texture is told after it
    """
    chosen = torch.arange(len(codes.image))
    if len(chosen) > MOST:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(chosen), generator=generator)[:MOST].sort().values
    middle = codes.codes.mean(0)
    points, code = place(codes, position, middle), F.normalize(codes.codes - middle, dim=1)
    texture = torch.from_numpy(np.concatenate(list(_textures(codes, cache, chosen, contrast))))
    weight = torch.from_numpy(sizes(codes, cache)[chosen.numpy()])
    return RegionRows(points[chosen], code[chosen], texture, codes.image[chosen], weight)


def sizes(codes: RegionCodes, cache: RegionCache) -> Array:
    """Pixels of every region, float64 [R], as the cache cut it."""
    scale = int(codes.scale[0])
    found = np.zeros(len(codes.image))
    for number, rows in _by_image(codes.image):
        ids = signed(cache.regions[number, scale])
        counts = np.bincount(ids[ids >= 0], minlength=int(codes.region[rows].max()) + 1)
        found[rows] = counts[codes.region[rows].numpy()]
    return found


def soft_maps(soft: Tensor, codes: RegionCodes, cache: RegionCache, grid: tuple[int, int]) -> Tensor:
    """The shares of regions at every cell: float16 [n, K, h, w] of float [R, K]; 0 where no data is."""
    scale = int(codes.scale[0])
    ids = coarse(cache.regions[:, scale], grid)
    table = torch.zeros(len(cache.counts), int(cache.counts[:, scale].max()) + 1, soft.shape[1], dtype=torch.float16)
    table[codes.image, codes.region] = soft.half()  # the last row stays 0: no data
    index = torch.where(ids < 0, table.shape[1] - 1, ids)
    return torch.stack([rows[one].movedim(-1, 0) for rows, one in zip(table, index, strict=True)])


def _textures(codes: RegionCodes, cache: RegionCache, chosen: Tensor, contrast: float) -> Iterator[Array]:
    """Of each image with chosen regions their textures [r, 5]."""
    scale = int(codes.scale[0])
    for number, rows in _by_image(codes.image[chosen]):
        ids = signed(cache.regions[number, scale]).astype(np.int64)
        image = np.array(cache.images[number])
        found, _ = textures(equalize(image, contrast) if contrast else image, ids, int(ids.max()) + 1)
        yield found[codes.region[chosen[rows]].numpy()]


def _by_image(image: Tensor) -> Iterator[tuple[int, slice]]:
    """Every image of the rows, and which rows are its: they lie together."""
    numbers, first = np.unique(image.numpy(), return_index=True)
    for number, (low, high) in zip(numbers.tolist(), pairwise([*first.tolist(), len(image)]), strict=True):
        yield number, slice(low, high)
