"""A photo's label map, refined along its edges: scores on the grid → probabilities → refined → the photo's own size.

Knows nothing of networks or requests. The service and the evaluator both come here, so that what is measured is
what is served. numba is imported with the first use of the dense CRF, and not for the fast way.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from models import assign, guided
from models.crf import dense, reference, tiled
from models.crf.params import PUBLISHED, CRFParams, Refined
from models.crf.tiled import Span
from models.deadline import Until
from models.manifest import CodeSpec
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
    spec: CodeSpec,
    *,
    method: Method = "dense",
    resolution: Resolution = "input",
    photo: Array | None = None,
    params: CRFParams = PUBLISHED,
    threads: int = 1,
    deadline: Until = None,
) -> Array:
    """The best cluster of every pixel once the photo's edges have been heard.

    scores      float32 [K, h, w];  code  float32 [D, h, w], needed where assignment is `cosine`
    fitted      what the network was given, and the photo's size
    spec        how scores become probabilities: temperature, assignment, interpolation
    method      `dense`: the CRF; `pydensecrf`: the same by that package (models.crf.reference); `fast`: the guided
                filter, which has no use for params
    resolution  `input`: edges are those of the fitted image; `source`: those of the photo, which must be given
    photo       uint8 [H, W, 3] RGB
    threads     threads for this one image; pydensecrf has one
    deadline    time.monotonic() after which DeadlineExceeded is raised
    returns     uint8 [H, W] at the photo's size

    `input` is what the papers do. What is interpolated to the photo's size are the CRF's marginals, not its labels:
    edges stay smooth. At the source, distances in pixels grow with the photo, and a large one is refined in windows.
    Raises CRFError (see models.crf.dense.refine), and reference.NotInstalled.
    """
    if resolution == "source" and (photo is None or photo.shape[:2] != fitted.source):
        raise ValueError("to refine at the source's size, its pixels are needed")
    picture = fitted.filled
    height, width = picture.shape[:2]

    if method == "fast":
        decided = assign.probabilities(
            scores, code, scores.shape[1:], temperature=SHARPNESS * spec.temperature, assignment=spec.assignment
        )
        guide = photo if resolution == "source" and photo is not None else resize(picture.copy(), fitted.source)
        return guided.refine(decided, fitted.pixels, guide, fitted.box, threads=threads, deadline=deadline)

    def probabilities(rows: Span, columns: Span, size: tuple[int, int]) -> Array:
        (top, left, down, across), shape = fitted.box, (rows[1] - rows[0], columns[1] - columns[0])
        part = (
            top + down * rows[0] / size[0],
            left + across * columns[0] / size[1],
            down * shape[0] / size[0],
            across * shape[1] / size[1],
        )
        return assign.probabilities(
            scores,
            code,
            shape,
            temperature=spec.temperature,
            assignment=spec.assignment,
            box=part,
            interpolation=spec.interpolation,
        )

    solve: Callable[..., Refined] = reference.refine
    if method == "dense":
        solve = partial(dense.refine, threads=threads, return_marginals=True)
    if resolution == "source" and photo is not None:
        scale = math.sqrt(fitted.source[0] * fitted.source[1] / (height * width))
        grown = replace(
            params,
            gaussian_sxy=min(max(1, round(params.gaussian_sxy * scale)), MAX_SMOOTH_SXY),  # whole: its weights repeat
            bilateral_sxy=params.bilateral_sxy * scale,
        )
        return tiled.refine(partial(probabilities, size=fitted.source), photo, grown, solve, deadline=deadline)
    whole = (0, height), (0, width), (height, width)
    return assign.labels(solve(probabilities(*whole), picture, params, deadline=deadline).marginals, fitted.source)
