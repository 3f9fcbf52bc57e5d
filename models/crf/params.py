"""What the dense CRF takes and refuses: arrays, parameters, ranges.

Knows nothing of how it is solved.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.errors import TesseraError

if TYPE_CHECKING:
    pass


Probabilities = NDArray[np.float32]
Labels = NDArray[np.uint8]

CACHE_BYTES = 32 << 20  # of the smoothing term's weights, kept for sizes that come again
MAX_GAUSSIAN_SXY = 3.0  # its stencil has up to (8·sxy)² weights: wide smoothing is the bilateral term's work


class CRFError(TesseraError):
    """Arguments the CRF cannot work with."""


def check_arrays(probabilities: Probabilities, image: NDArray[np.uint8]) -> None:
    """Raises CRFError for what `refine` says its first two arguments must not be."""
    if probabilities.dtype != np.float32 or probabilities.ndim != 3:
        raise CRFError(f"probabilities are {_kind(probabilities)}; float32 [K, H, W] is needed")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise CRFError(f"the image is {_kind(image)}; uint8 [H, W, 3] is needed")
    k, height, width = probabilities.shape
    if image.shape[:2] != (height, width):
        raise CRFError(
            f"probabilities are {height}×{width} but the image is {image.shape[0]}×{image.shape[1]}; resize one"
        )
    if not 1 <= k <= 256 or height == 0 or width == 0:
        raise CRFError(f"probabilities are {_kind(probabilities)}; 1 to 256 labels and at least one pixel are needed")
    mass = probabilities.sum(axis=0)
    if not (probabilities.min() >= 0 and abs(mass - 1).max() < 1e-2):  # written so that NaN fails
        raise CRFError("probabilities must be at least 0 and sum to 1 over the labels; apply a softmax first")


def check_parameters(
    iterations: int,
    gaussian_sxy: float,
    gaussian_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
) -> None:
    """Raises CRFError for one out of its range, by its name."""
    _check_range("iterations", iterations, 0, 1000)
    _check_range("gaussian_sxy", gaussian_sxy, 0.1, MAX_GAUSSIAN_SXY)
    _check_range("gaussian_compat", gaussian_compat, 0, 1000)
    _check_range("bilateral_sxy", bilateral_sxy, 0.1, math.inf)
    _check_range("bilateral_srgb", bilateral_srgb, 0.1, math.inf)
    _check_range("bilateral_compat", bilateral_compat, 0, 1000)


def _kind(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high or math.isinf(value):
        raise CRFError(f"{name} is {value}; it must be a number from {low:g} to {high:g}")
