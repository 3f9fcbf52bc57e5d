"""Edges refined within the time there is: the dense CRF or the fast filter, in the threads for them.

Knows nothing of HTTP or answers: what the network said of an image goes in, a label map comes out, or none in time.
"""

from __future__ import annotations

import asyncio
import time

from models.assign import Array
from models.crf import CRFTimeout
from models.errors import TesseraError
from models.refined import refined
from service.encoding import Encoding, Way
from service.errors import BadOption
from service.schemas import Options

_KEPT_S = 0.25  # of an image's time, for what follows; at most a fifth of what is left


async def refine(way: Way, encoding: Encoding, options: Options, limit_s: float) -> Array | None:
    """The network's own ids uint8 [H, W] at the source's size, along the photo's edges; None when time ran out.

    limit_s  the most it may take, waiting for a thread included

    Raises BadOption for parameters that do not go with this image.
    """
    house = way.order.house
    began = time.monotonic()
    left_s = way.order.deadline - began
    late = began + min(limit_s, left_s - min(_KEPT_S, left_s / 5))

    def work() -> Array:
        photo, code = way.photo(), way.manifest.code
        with way.timed("crf"):
            try:
                return refined(
                    encoding.scores,
                    encoding.code,
                    photo.fitted,
                    temperature=code.temperature,
                    assignment=code.assignment,
                    interpolation=code.interpolation,
                    how=options.refine or "dense",
                    at=options.crf_size,
                    photo=photo.decoded.image,
                    iterations=options.crf_iterations,
                    gaussian_compat=options.crf_gaussian_compat,
                    bilateral_sxy=options.crf_bilateral_sxy,
                    bilateral_srgb=options.crf_bilateral_srgb,
                    bilateral_compat=options.crf_bilateral_compat,
                    threads=house.crf_threads(),
                    deadline=late,
                )
            except CRFTimeout:
                raise
            except TesseraError as error:  # deviations that do not go with this image's size
                raise BadOption(f"crf: {error}") from None

    loop = asyncio.get_running_loop()
    try:
        with house.refining():
            async with asyncio.timeout_at(loop.time() + late - time.monotonic()):
                return await way.job(work, house.workers if options.refine == "fast" else house.crf_workers)
    except (TimeoutError, CRFTimeout):
        return None
