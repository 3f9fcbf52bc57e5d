"""Features and regions of the right shape and no cost, for planning; and what the real ones will take.

Knows nothing of methods. Every crop is the same random one, in one crop's memory, however many there are.
"""

import math

import numpy as np

from models.nets.backbone import Backbone
from training.config.run import Run
from training.config.work import Work
from training.data.regions import RegionCache, RegionOptions
from training.features.neighbors import NEIGHBORS
from training.features.store import FeatureOptions, Features

_REGIONS = 16  # in each image of the stand-in, in a grid


def features(backbone: Backbone, options: FeatureOptions, run: Run) -> Features:
    """As `open_features` answers: random numbers of its shape."""
    crops, side = _crops(options, run), run.recipe.input.train_size // backbone.stride
    one = np.random.default_rng(0).standard_normal((backbone.channels, side, side)).astype(options.precision)
    nearest = np.add.outer(np.arange(crops), np.arange(_neighbors(crops))) % crops
    return Features(np.broadcast_to(one, (crops, *one.shape)), nearest)


def features_work(backbone: Backbone, options: FeatureOptions, run: Run) -> Work:
    """What `open_features` does: one pass, the maps on the disk, the means in memory for the neighbors."""
    crops, side = _crops(options, run), run.recipe.input.train_size // backbone.stride
    each = backbone.channels * (side**2 * np.dtype(options.precision).itemsize + 4) + side**2 + 8 * _neighbors(crops)
    held = 2 * 4 * backbone.channels + 8 * _neighbors(crops)
    return Work("features", crops, "training size", disk_bytes=crops * each, memory_bytes=crops * held)


def _neighbors(crops: int) -> int:
    return min(NEIGHBORS, crops - 1) + 1


def _crops(options: FeatureOptions, run: Run) -> int:
    return len(run.images) * (5 if options.five_crop else 1)


def regions(options: RegionOptions, run: Run, most: int | None = None) -> RegionCache:
    """As `Run.regions` answers: gray images of sixteen regions."""
    (height, width), count = options.size, _images(run, most)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    grid = (4 * rows[:, None] + columns).astype(np.uint16)
    scales = len(options.scales)
    return RegionCache(
        tuple(run.images.paths[:count]),
        np.broadcast_to(np.full((height, width, 3), 128, np.uint8), (count, height, width, 3)),
        np.broadcast_to(grid, (count, scales, height, width)),
        np.broadcast_to(np.int64(_REGIONS), (count, scales)),
    )


def regions_work(options: RegionOptions, run: Run, most: int | None = None) -> Work:
    """What `Run.regions` does: one pass; images and regions on the disk."""
    (height, width), count = options.size, _images(run, most)
    each = height * width * (3 + 2 * len(options.scales))
    return Work("regions", count, "regions", disk_bytes=count * each)


def _images(run: Run, most: int | None) -> int:
    count = len(run.images)
    return math.ceil(count / math.ceil(count / most)) if most else count
