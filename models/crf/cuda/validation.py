"""What models.crf.dense.refine refuses, refused for batches on a device, in the same words.

Knows nothing of kernels or memory. What needs a look at the numbers the kernels report in a STATUS for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crf.cuda.device import DeviceArray
from models.crf.params import NOT_PROBABILITIES, TOO_FINE, CRFError, LatticeError, check_shapes, kind_of


def check_batch(maps: Sequence[DeviceArray], pictures: Sequence[DeviceArray]) -> int:
    """K. The refusals of models.crf.dense.refine that need no look at the numbers."""
    if not maps or len(maps) != len(pictures):
        raise CRFError(f"{len(maps)} probabilities for {len(pictures)} images; one of each is needed, and at least one")
    for map_, picture in zip(maps, pictures, strict=True):
        check_shapes(map_, picture)
        if map_.shape[0] != maps[0].shape[0]:
            raise CRFError(f"a batch with {maps[0].shape[0]} and with {map_.shape[0]} labels; refine them apart")
    return maps[0].shape[0]


def check_scores(maps: Sequence[DeviceArray], images: int) -> int:
    """K, at most 256: labels are bytes."""
    if not maps or len(maps) != images:
        raise ValueError(f"{len(maps)} scores for {images} images; one for each is needed, and at least one")
    for scores in maps:
        if scores.dtype != np.float32 or len(scores.shape) != 3 or scores.shape[0] != maps[0].shape[0]:
            raise ValueError(f"scores are {kind_of(scores)}; float32 [K, h, w] is needed, of one K for the batch")
    if not 1 <= maps[0].shape[0] <= 256:
        raise ValueError(f"scores are {kind_of(maps[0])}; 1 to 256 clusters are needed")
    return maps[0].shape[0]


def check_status(status: NDArray[Any], which: slice, of: int) -> None:
    """The refusals of models.crf.dense.refine that only the device can see, for some of a batch `of` so many images."""
    for flag, error, words in (("improbable", CRFError, NOT_PROBABILITIES), ("out_of_range", LatticeError, TOO_FINE)):
        if status[flag].any():
            who = "" if of == 1 else f"image {which.start + int(status[flag].argmax())} of the batch: "
            raise error(f"{who}{words}")
