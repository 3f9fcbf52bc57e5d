"""A photo's label map after the CRF: scores on the grid → probabilities → refined → the photo's own size.

Knows nothing of networks or requests. The service and the evaluator both come here, so that what is measured is
what is served. numba is imported with the first use.
"""

from __future__ import annotations

from models import assign, crf
from models.assign import Array, Assignment
from models.image import Fit


def refined(
    scores: Array,
    code: Array | None,
    fitted: Fit,
    *,
    temperature: float,
    assignment: Assignment = "cosine",
    iterations: int = 10,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 67.0,
    bilateral_srgb: float = 3.0,
    bilateral_compat: float = 4.0,
) -> Array:
    """The best cluster of every pixel once the CRF has been heard.

    scores   float32 [K, h, w];  code  float32 [D, h, w], needed where assignment is `cosine`
    fitted   what the network was given, and the photo's size
    returns  uint8 [H, W] at the photo's size

    Refined at the network's size, as the papers do. What is interpolated to the photo's size are the CRF's
    marginals, not its labels: edges stay smooth. Raises CRFError and LatticeError (see models.crf.refine).
    """
    height, width = fitted.pixels.shape[:2]
    top, left = round(fitted.box[0] * height), round(fitted.box[1] * width)
    inner = (round(fitted.box[2] * height), round(fitted.box[3] * width))
    probabilities = assign.probabilities(
        scores, code, inner, temperature=temperature, assignment=assignment, box=fitted.box
    )
    picture = fitted.pixels[top : top + inner[0], left : left + inner[1]].copy()
    _, marginals = crf.refine(
        probabilities,
        picture,
        iterations=iterations,
        gaussian_compat=gaussian_compat,
        bilateral_sxy=bilateral_sxy,
        bilateral_srgb=bilateral_srgb,
        bilateral_compat=bilateral_compat,
        return_marginals=True,
    )
    return assign.labels(marginals, fitted.source)
