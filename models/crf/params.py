"""What the dense CRF takes, gives and refuses: arrays, the numbers it works with, and their ranges.

Knows nothing of how it is solved, nor on which device.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import TesseraError

Probabilities = NDArray[np.float32]
Labels = NDArray[np.uint8]

MIN_PROBABILITY = 1e-5  # the published pipelines clip here: a certain pixel can still be overruled
CACHE_BYTES = 32 << 20  # of the smoothing term's weights, kept for sizes that come again
MAX_GAUSSIAN_SXY = 3.0  # its stencil has up to (8·sxy)² weights: wide smoothing is the bilateral term's work

TOO_FINE = "the standard deviations are too small for the range of positions and colors; make them larger"


class CRFError(TesseraError):
    """Arguments the CRF cannot work with."""


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises CRFError for a value that is not a number from low to high, or not finite."""
    if not low <= value <= high or math.isinf(value):
        raise CRFError(f"{name} is {value}; it must be a number from {low:g} to {high:g}")


@dataclass(frozen=True)
class CRFParams:
    """The numbers of one CRF. The defaults are those with which STEGO and CAUSE publish their scores.

    iterations     of mean field
    gaussian_*     standard deviation in pixels, and weight, of the term that smooths
    bilateral_*    standard deviations in pixels and in color levels, and weight, of the term that follows edges

    Raises CRFError for one out of its range, by its name.
    """

    iterations: int = 10
    gaussian_sxy: float = 1.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 67.0
    bilateral_srgb: float = 3.0
    bilateral_compat: float = 4.0

    def __post_init__(self) -> None:
        check_range("iterations", self.iterations, 0, 1000)
        check_range("gaussian_sxy", self.gaussian_sxy, 0.1, MAX_GAUSSIAN_SXY)
        check_range("gaussian_compat", self.gaussian_compat, 0, 1000)
        check_range("bilateral_sxy", self.bilateral_sxy, 0.1, math.inf)
        check_range("bilateral_srgb", self.bilateral_srgb, 0.1, math.inf)
        check_range("bilateral_compat", self.bilateral_compat, 0, 1000)


PUBLISHED = CRFParams()


class Refined(NamedTuple):
    """What a CRF made of an image.

    labels     uint8 [H, W], the most probable ones
    marginals  float32 [K, H, W], which sum to 1 over K; of no label, [0, H, W], where they were not asked for
    """

    labels: Labels
    marginals: Probabilities


def check_arrays(probabilities: Probabilities, image: NDArray[np.uint8]) -> None:
    """Raises CRFError for what a CRF's first two arguments must not be."""
    if probabilities.dtype != np.float32 or probabilities.ndim != 3:
        raise CRFError(f"probabilities are {kind_of(probabilities)}; float32 [K, H, W] is needed")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise CRFError(f"the image is {kind_of(image)}; uint8 [H, W, 3] is needed")
    k, height, width = probabilities.shape
    if image.shape[:2] != (height, width):
        raise CRFError(
            f"probabilities are {height}×{width} but the image is {image.shape[0]}×{image.shape[1]}; resize one"
        )
    if not 1 <= k <= 256 or height == 0 or width == 0:
        raise CRFError(f"probabilities are {kind_of(probabilities)}; 1 to 256 labels and at least one pixel are needed")
    mass = probabilities.sum(axis=0)
    if not (probabilities.min() >= 0 and abs(mass - 1).max() < 1e-2):  # written so that NaN fails
        raise CRFError("probabilities must be at least 0 and sum to 1 over the labels; apply a softmax first")


def kind_of(array: Any) -> str:
    """An array's type and shape, for people."""
    return f"{array.dtype} {list(array.shape)}"
