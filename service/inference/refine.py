"""Edges refined within the time there is: the dense CRF or the fast filter, on the GPU, in threads or in processes.

Knows nothing of HTTP or answers: what the network said of an image goes in, a label map comes out, or none in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from models import refine as refinement
from models.deadline import DeadlineExceeded
from models.errors import TesseraError
from models.types import Array
from service.errors import BadOption, Busy
from service.inference.options import Options
from service.inference.results import NetworkOutput, Refined
from service.inference.task import Way
from service.refiners.gpu_batcher import GpuBatcher, NotOnDevice
from service.refiners.process_pool import ProcessLost, ProcessPoolRefiner

log = logging.getLogger("tessera")

_KEPT_S = 0.25  # of an image's time, for what follows; at most a third of what is left


class NotRefined(TesseraError):
    """Time ran out first; says what would help."""


async def refine(way: Way, output: NetworkOutput, options: Options, limit_s: float) -> Array:
    """The network's own ids uint8 [H, W] at the source's size.

    limit_s  the most it may take, waiting for a thread included

    Raises NotRefined, and BadOption for parameters that do not go with this image.
    """
    runtime = way.order.runtime
    began = time.monotonic()
    left_s = way.order.deadline - began
    late = began + min(limit_s, left_s - min(_KEPT_S, left_s / 3))
    how = options.refine or "dense"
    pool = runtime.workers if how == "fast" else runtime.crf_workers
    compiling = runtime.compiling.note if how == "dense" else None

    async def make() -> Refined:
        if runtime.device is not None and runtime.device.alive and how == "dense" and options.crf_size == "input":
            try:
                return Refined(await _on_device(way, output, options, runtime.device, late))
            except NotOnDevice as error:
                log.info("%s; the CPU refines this image", error)
        if runtime.processes is not None and how == "dense":
            processes = runtime.processes
            try:
                return Refined(await way.job(lambda: _in_a_process(way, output, options, processes, late), pool))
            except ProcessLost as error:
                log.warning("%s; ours refines this image", error)
        if how == "dense":
            await runtime.compiling.wait()
        with runtime.refining():
            return Refined(await way.job(lambda: _work(way, output, options, late), pool))

    key = None if way.key is None else (*way.key, how, options.crf_size, options.crf_params)
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + late - time.monotonic()):
            return (await runtime.refined.get(key, make, retry_on=(DeadlineExceeded,))).labels
    except (TimeoutError, DeadlineExceeded):
        now = runtime.compiling.note if compiling else None
        raise NotRefined(f"not refined: {now or compiling or _LATE + _cheaper(options, output.source)}") from None


_LATE = "the time ran out first; allow more with timeout_ms or TESSERA_CRF_TIMEOUT_S"


_FAST_PX = 2_000_000  # beyond it the fast way, which reads every pixel, takes as long as the CRF at the input's size


def _cheaper(options: Options, source: tuple[int, int]) -> str:
    """What costs less than what was asked for."""
    if options.crf_size == "source":
        return ", or use crf_size=input"
    return ", or use crf=fast" if options.refine == "dense" and source[0] * source[1] <= _FAST_PX else ""


async def _on_device(way: Way, output: NetworkOutput, options: Options, device: GpuBatcher, late: float) -> Array:
    fitted = (await way.job(way.photo)).fitted
    with way.timed("crf"), _as_bad_option():
        return await device.refine(
            output.scores, output.code, fitted, way.manifest.code, options.crf_params, deadline=late
        )


def _in_a_process(
    way: Way, output: NetworkOutput, options: Options, processes: ProcessPoolRefiner, late: float
) -> Array:
    photo = way.photo()
    with way.timed("crf"), _as_bad_option():
        return processes.refine(
            output.scores,
            output.code,
            photo.fitted,
            resolution=options.crf_size,
            photo=photo.decoded.image if options.crf_size == "source" else None,  # it has to travel
            deadline=late,
            spec=way.manifest.code,
            params=options.crf_params,
        )


def _work(way: Way, output: NetworkOutput, options: Options, late: float) -> Array:
    photo = way.photo()
    with way.timed("crf"), _as_bad_option():
        return refinement.refine(
            output.scores,
            output.code,
            photo.fitted,
            method=options.refine or "dense",
            resolution=options.crf_size,
            photo=photo.decoded.image,
            threads=way.order.runtime.crf_threads(),
            deadline=late,
            spec=way.manifest.code,
            params=options.crf_params,
        )


@contextmanager
def _as_bad_option() -> Iterator[None]:
    """Deviations that do not go with this image's size are the caller's to change."""
    try:
        yield
    except (DeadlineExceeded, NotOnDevice, ProcessLost, Busy):
        raise
    except TesseraError as error:
        raise BadOption(f"crf: {error}") from None
