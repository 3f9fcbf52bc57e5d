"""A photo's label map, refined along its edges: scores on the grid → probabilities → refined → the photo's own size.

Knows nothing of networks or requests. The service and the evaluator both come here, so that what is measured is
what is served. numba is imported with the first use of the dense CRF, and not for the fast way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from models import assign, guided
from models.assign import Assignment, Interpolation
from models.crf import dense, reference, tiled
from models.crf.tiled import Span
from models.preprocess import Fit, resize
from models.types import Array

Method = Literal["dense", "fast", "pydensecrf"]
Resolution = Literal["input", "source"]

SHARPNESS = 10.0  # times the temperature: the guided filter averages, so that what it is given must be decided
MAX_SMOOTH_SXY = 2  # of the smoothing term at the photo's size: its cost grows with the square


def refine(
    scores: Array,
    code: Array | None,
    fitted: Fit,
    *,
    temperature: float,
    assignment: Assignment = "cosine",
    interpolation: Interpolation = "bilinear",
    method: Method = "dense",
    resolution: Resolution = "input",
    photo: Array | None = None,
    iterations: int = 10,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 67.0,
    bilateral_srgb: float = 3.0,
    bilateral_compat: float = 4.0,
    threads: int = 1,
    deadline: float | None = None,
) -> Array:
    """The best cluster of every pixel once the photo's edges have been heard.

    scores    float32 [K, h, w];  code  float32 [D, h, w], needed where assignment is `cosine`
    fitted    what the network was given, and the photo's size
    method       `dense`: the CRF; `pydensecrf`: the same by that package (models.crf.reference); `fast`: the guided
              filter, which takes none of the parameters after photo
    resolution `input`: edges are those of the fitted image; `source`: those of the photo, which must be given
    photo     uint8 [H, W, 3] RGB
    deadline  time.monotonic() after which the CRF raises CRFTimeout
    returns   uint8 [H, W] at the photo's size

    `input` is what the papers do. What is interpolated to the photo's size are the CRF's marginals, not its labels:
    edges stay smooth. At the source, distances in pixels grow with the photo, and a large one is refined in windows.
    Raises CRFError and LatticeError (see models.crf.dense.refine), and reference.NotInstalled.
    """
    if resolution == "source" and (photo is None or photo.shape[:2] != fitted.source):
        raise ValueError("to refine at the source's size, its pixels are needed")
    height, width = fitted.pixels.shape[:2]
    top, left = round(fitted.box[0] * height), round(fitted.box[1] * width)
    inner = (round(fitted.box[2] * height), round(fitted.box[3] * width))
    picture = fitted.pixels[top : top + inner[0], left : left + inner[1]]

    if method == "fast":
        decided = assign.probabilities(
            scores, code, scores.shape[1:], temperature=SHARPNESS * temperature, assignment=assignment
        )
        guide = photo if resolution == "source" and photo is not None else resize(picture.copy(), fitted.source)
        return guided.refine(decided, fitted.pixels, guide, fitted.box, threads=threads, deadline=deadline)

    def probabilities(rows: Span, columns: Span, size: tuple[int, int]) -> Array:
        part = (
            fitted.box[0] + fitted.box[2] * rows[0] / size[0],
            fitted.box[1] + fitted.box[3] * columns[0] / size[1],
            fitted.box[2] * (rows[1] - rows[0]) / size[0],
            fitted.box[3] * (columns[1] - columns[0]) / size[1],
        )
        shape = rows[1] - rows[0], columns[1] - columns[0]
        return assign.probabilities(
            scores, code, shape, temperature=temperature, assignment=assignment, box=part, interpolation=interpolation
        )

    refine: Callable[..., Any] = reference.refine if method == "pydensecrf" else partial(dense.refine, threads=threads)
    if resolution == "source" and photo is not None:
        scale = math.sqrt(fitted.source[0] * fitted.source[1] / (inner[0] * inner[1]))
        return tiled.refine(
            lambda rows, columns: probabilities(rows, columns, fitted.source),
            photo,
            iterations=iterations,
            gaussian_sxy=min(max(1, round(scale)), MAX_SMOOTH_SXY),  # whole: its weights then repeat
            gaussian_compat=gaussian_compat,
            bilateral_sxy=bilateral_sxy * scale,
            bilateral_srgb=bilateral_srgb,
            bilateral_compat=bilateral_compat,
            by=refine,
            deadline=deadline,
        )
    _, marginals = refine(
        probabilities((0, inner[0]), (0, inner[1]), inner),
        picture,
        iterations=iterations,
        gaussian_compat=gaussian_compat,
        bilateral_sxy=bilateral_sxy,
        bilateral_srgb=bilateral_srgb,
        bilateral_compat=bilateral_compat,
        deadline=deadline,
        return_marginals=True,
    )
    return assign.labels(marginals, fitted.source)
