"""What models.crf.dense.refine refuses, refused for batches on a device, in the same words.

Knows nothing of kernels or memory. What needs a look at the numbers the kernels report in a STATUS for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crf.cuda.device import DeviceArray
from models.crf.cuda.solver import Parameters
from models.crf.params import CRFError, check_parameters


def checked(parameters: Parameters) -> Parameters:
    """As models.crf.dense.refine checks them. Raises CRFError."""
    check_parameters(
        parameters.iterations,
        parameters.gaussian_sxy,
        parameters.gaussian_compat,
        parameters.bilateral_sxy,
        parameters.bilateral_srgb,
        parameters.bilateral_compat,
    )
    return replace(parameters, iterations=int(parameters.iterations), gaussian_sxy=float(parameters.gaussian_sxy))


def check_batch(maps: Sequence[DeviceArray], pictures: Sequence[DeviceArray]) -> int:
    """K. The refusals of models.crf.dense.refine that need no look at the numbers."""
    if not maps or len(maps) != len(pictures):
        raise CRFError(f"{len(maps)} probabilities for {len(pictures)} images; one of each is needed, and at least one")
    for map_, picture in zip(maps, pictures, strict=True):
        if map_.dtype != np.float32 or len(map_.shape) != 3:
            raise CRFError(f"probabilities are {_kind(map_)}; float32 [K, H, W] is needed")
        if picture.dtype != np.uint8 or len(picture.shape) != 3 or picture.shape[2] != 3:
            raise CRFError(f"the image is {_kind(picture)}; uint8 [H, W, 3] is needed")
        k, height, width = map_.shape
        if picture.shape[:2] != (height, width):
            raise CRFError(
                f"probabilities are {height}×{width} but the image is {picture.shape[0]}×{picture.shape[1]}; resize one"
            )
        if not 1 <= k <= 256 or height == 0 or width == 0:
            raise CRFError(f"probabilities are {_kind(map_)}; 1 to 256 labels and at least one pixel are needed")
        if k != maps[0].shape[0]:
            raise CRFError(f"a batch with {maps[0].shape[0]} and with {k} labels; refine them apart")
    return maps[0].shape[0]


def check_scores(maps: Sequence[DeviceArray], images: int) -> int:
    """K, at most 256: labels are bytes."""
    if not maps or len(maps) != images:
        raise ValueError(f"{len(maps)} scores for {images} images; one for each is needed, and at least one")
    for scores in maps:
        if scores.dtype != np.float32 or len(scores.shape) != 3 or scores.shape[0] != maps[0].shape[0]:
            raise ValueError(f"scores are {_kind(scores)}; float32 [K, h, w] is needed, of one K for the batch")
    if not 1 <= maps[0].shape[0] <= 256:
        raise ValueError(f"scores are {_kind(maps[0])}; 1 to 256 clusters are needed")
    return maps[0].shape[0]


def check_status(status: NDArray[Any], which: slice, of: int) -> None:
    """The refusals of models.crf.dense.refine that only the device can see, for some of a batch `of` so many images."""

    def first(flags: NDArray[Any]) -> str:
        return "" if of == 1 else f"image {which.start + int(flags.argmax())} of the batch: "

    if status["improbable"].any():
        who = first(status["improbable"])
        raise CRFError(f"{who}probabilities must be at least 0 and sum to 1 over the labels; apply a softmax first")
    if status["out_of_range"].any():
        from models.crf.cpu.lattice import LatticeError

        who = first(status["out_of_range"])
        raise LatticeError(
            f"{who}the standard deviations are too small for the range of positions and colors; make them larger"
        )


def _kind(array: DeviceArray) -> str:
    return f"{array.dtype} {list(array.shape)}"
