"""What a batch on a device must not be.

Knows nothing of kernels or memory. What needs a look at the pixels the kernels report in a STATUS for each image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crf.cuda.device import DeviceArray
from models.crf.params import TOO_FINE, CRFError, kind_of


def check_scores(maps: Sequence[DeviceArray], images: int) -> int:
    """K, at most 256: labels are bytes. Raises ValueError."""
    if not maps or len(maps) != images:
        raise ValueError(f"{len(maps)} scores for {images} images; one for each is needed, and at least one")
    for scores in maps:
        if scores.dtype != np.float32 or len(scores.shape) != 3 or scores.shape[0] != maps[0].shape[0]:
            raise ValueError(f"scores are {kind_of(scores)}; float32 [K, h, w] is needed, of one K for the batch")
    if not 1 <= maps[0].shape[0] <= 256:
        raise ValueError(f"scores are {kind_of(maps[0])}; 1 to 256 clusters are needed")
    return maps[0].shape[0]


def check_status(status: NDArray[Any], which: slice, of: int) -> None:
    """Raises CRFError as models.crf.dense.refine does, for some of a batch `of` so many images."""
    if status["out_of_range"].any():
        who = "" if of == 1 else f"image {which.start + int(status['out_of_range'].argmax())} of the batch: "
        raise CRFError(f"{who}{TOO_FINE}")
