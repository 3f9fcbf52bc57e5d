"""The dense CRF of the published pipelines, computed by their own package, pydensecrf.

Knows nothing of networks, clusters or requests: probabilities and pixels in, labels out, as models.crf.dense.refine.
The tests hold ours against this one, and a server may be told to answer with it. One thread, and Python's lock is
held all the while: several images at once need as many processes. The package is imported at the first use.
"""

from __future__ import annotations

import math
import shlex
import sys
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from models.crf.params import CRFError, Labels, Probabilities, check_arrays, check_parameters
from models.deadline import check_time
from models.errors import TesseraError

_STEPS = 32_000  # its lattice counts steps in 16 bits, and does not say so when they are too few
_STEPS_PER_DEVIATION = 6 * math.sqrt(2 / 3)  # along one of five features, at most


class NotInstalled(TesseraError):
    """The package that computes this is not there, or does not work."""


def missing() -> str | None:
    """Why nothing can be refined here, and what to do about it; None where the package is installed and works."""
    try:
        import pydensecrf.densecrf
        import pydensecrf.utils  # noqa: F401
    except Exception as error:
        return (
            f"pydensecrf cannot be imported ({error}); with a C++ compiler and pip 25.3 or newer this installs it:\n"
            f"echo 'cython<3' > c.txt; CYTHON_FORCE_REGEN=1 {shlex.quote(sys.executable)} -m pip install --pre"
            " --build-constraint c.txt pydensecrf"
        )
    return None


@overload
def refine(
    probabilities: Probabilities,
    image: NDArray[np.uint8],
    *,
    iterations: int = ...,
    gaussian_sxy: float = ...,
    gaussian_compat: float = ...,
    bilateral_sxy: float = ...,
    bilateral_srgb: float = ...,
    bilateral_compat: float = ...,
    deadline: float | None = ...,
    return_marginals: Literal[False] = ...,
) -> Labels: ...
@overload
def refine(
    probabilities: Probabilities,
    image: NDArray[np.uint8],
    *,
    iterations: int = ...,
    gaussian_sxy: float = ...,
    gaussian_compat: float = ...,
    bilateral_sxy: float = ...,
    bilateral_srgb: float = ...,
    bilateral_compat: float = ...,
    deadline: float | None = ...,
    return_marginals: Literal[True],
) -> tuple[Labels, Probabilities]: ...
def refine(
    probabilities: Probabilities,
    image: NDArray[np.uint8],
    *,
    iterations: int = 10,
    gaussian_sxy: float = 1.0,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 67.0,
    bilateral_srgb: float = 3.0,
    bilateral_compat: float = 4.0,
    deadline: float | None = None,
    return_marginals: bool = False,
) -> Labels | tuple[Labels, Probabilities]:
    """What models.crf.dense.refine answers, with the same arguments but for `threads`: there is one.

    As STEGO and CAUSE call it: energies clipped by `unary_from_softmax`, colors in BGR. Raises CRFError, CRFTimeout at
    the latest one iteration after the deadline, and NotInstalled.
    """
    check_arrays(probabilities, image)
    check_parameters(iterations, gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    k, height, width = probabilities.shape
    if _STEPS_PER_DEVIATION * ((height + width) / bilateral_sxy + 3 * 255 / bilateral_srgb) > _STEPS:
        raise CRFError("the standard deviations are too small for the range of positions and colors; make them larger")
    if reason := missing():
        raise NotInstalled(reason)
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    check_time(deadline)
    model = DenseCRF2D(width, height, k)
    model.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    model.addPairwiseGaussian(sxy=gaussian_sxy, compat=gaussian_compat)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    model.addPairwiseBilateral(sxy=bilateral_sxy, srgb=bilateral_srgb, rgbim=bgr, compat=bilateral_compat)
    check_time(deadline)
    answer, *work = model.startInference()
    for _ in range(int(iterations)):  # as model.inference(iterations), bit for bit
        model.stepInference(answer, *work)
        check_time(deadline)
    marginals = np.array(answer, np.float32).reshape(k, height, width)
    labels = marginals.argmax(axis=0).astype(np.uint8)
    return (labels, marginals) if return_marginals else labels
