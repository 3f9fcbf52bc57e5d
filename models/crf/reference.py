"""The dense CRF of the published pipelines, computed by their own package, pydensecrf.

Knows nothing of networks, clusters or requests: probabilities and pixels in, labels out, as models.crf.dense.refine.
The tests hold ours against this one, and a server may be told to answer with it. One thread, and Python's lock is
held all the while: several images at once need as many processes. The package is imported at the first use.
"""

import math
import shlex
import sys

import numpy as np
from numpy.typing import NDArray

from models.crf.params import PUBLISHED, TOO_FINE, CRFError, CRFParams, Probabilities, Refined, check_arrays
from models.deadline import Until, check_time
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


def refine(
    probabilities: Probabilities,
    image: NDArray[np.uint8],
    params: CRFParams = PUBLISHED,
    *,
    deadline: Until = None,
) -> Refined:
    """What models.crf.dense.refine answers with the same arguments: on one thread, and always with the marginals.

    As STEGO and CAUSE call it: energies clipped by `unary_from_softmax`, colors in BGR. Raises CRFError,
    DeadlineExceeded at the latest one iteration after the deadline, and NotInstalled.
    """
    check_arrays(probabilities, image)
    k, height, width = probabilities.shape
    if _STEPS_PER_DEVIATION * ((height + width) / params.bilateral_sxy + 3 * 255 / params.bilateral_srgb) > _STEPS:
        raise CRFError(TOO_FINE)
    if reason := missing():
        raise NotInstalled(reason)
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    check_time(deadline)
    model = DenseCRF2D(width, height, k)
    model.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    model.addPairwiseGaussian(sxy=params.gaussian_sxy, compat=params.gaussian_compat)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    model.addPairwiseBilateral(
        sxy=params.bilateral_sxy, srgb=params.bilateral_srgb, rgbim=bgr, compat=params.bilateral_compat
    )
    check_time(deadline)
    answer, *work = model.startInference()
    for _ in range(params.iterations):  # as model.inference(iterations), bit for bit
        model.stepInference(answer, *work)
        check_time(deadline)
    marginals = np.array(answer, np.float32).reshape(k, height, width)
    return Refined(marginals.argmax(axis=0).astype(np.uint8), marginals)
