"""Edges refined within the time there is: the dense CRF or the fast filter, on the GPU, in threads or in processes.

Knows nothing of HTTP or answers: what the network said of an image goes in, a label map comes out, or none in time.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from models import refine as refinement
from models.deadline import Deadline, DeadlineExceeded
from models.errors import TesseraError
from models.manifest import CodeSpec
from models.types import Array
from service.errors import BadOption, Busy, DeadlinePassed
from service.inference.options import Options
from service.inference.results import NetworkOutput
from service.inference.task import ImageTask
from service.refiners.gpu_batcher import NotOnDevice
from service.refiners.process_pool import ProcessLost, ProcessPoolRefiner
from service.timings import at

log = logging.getLogger("tessera")

_KEPT_S = 0.25  # of an image's time, for what follows; at most a third of what is left
_FAST_PX = 2_000_000  # beyond it the fast way, which reads every pixel, takes as long as the CRF at the input's size
_LATE = "the time ran out first; allow more with timeout_ms or TESSERA_CRF_TIMEOUT_S"


class NotRefined(TesseraError):
    """Time ran out first; says what would help."""


async def refine(task: ImageTask[Options], output: NetworkOutput) -> Array:
    """The network's own ids uint8 [H, W] at the source's size, or the classes', along the photo's edges.

    Raises NotRefined, and BadOption for parameters that do not go with this image.
    """
    if len(output.scores) == 1 and output.ids is not None:  # a lone class has no edges
        return np.full(output.source, output.ids[0], np.uint8)
    labels = await _refined(task, output)
    return labels if output.ids is None else output.ids[labels]


async def _refined(task: ImageTask[Options], output: NetworkOutput) -> Array:
    """The best of the score maps, uint8 [H, W]."""
    runtime, options = task.runtime, task.options
    began = time.monotonic()
    left_s = task.deadline - began
    longest_s = left_s if task.background else runtime.crf_timeout_s - task.held_s
    late = began + min(longest_s, left_s - min(_KEPT_S, left_s / 3))
    dense = options.refine == "dense"
    compiling = runtime.warmup.note if dense else None
    pool = runtime.crf_workers if dense else runtime.large if output.large else runtime.workers

    until = Deadline(late)

    async def run(work: Any) -> Array:
        try:
            done = await pool.submit(work, key=task.caller, priority=options.priority, deadline=late)
        except asyncio.CancelledError:
            until.cancel()
            raise
        started = at(done.started)
        task.timings.waited(started - done.queue_s, started)
        labels: Array = done.answer
        return labels

    asked, own = time.perf_counter(), False

    async def make() -> Array:
        nonlocal own
        own = True
        if dense and not on_cpu(task):
            try:
                return await _on_device(task, output, late)
            except NotOnDevice as error:
                log.info("%s; the CPU refines this image", error)
        if dense and (processes := runtime.processes) is not None:
            try:
                return await run(lambda: _in_a_process(task, output, processes, late))
            except ProcessLost as error:
                log.warning("%s; ours refines this image", error)
        if dense:
            waits = time.perf_counter()
            try:
                await runtime.warmup.wait()
            finally:
                task.timings.waited(waits, time.perf_counter())
        return await run(lambda: _on_this_thread(task, output, runtime.cores if pool.alone else 1, until))

    key = None if task.key is None else (*task.key, output.serial, options.refine, options.crf_size, options.crf_params)
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + late - time.monotonic()):
            if task.background:
                return await make()
            return await runtime.refined_labels.get(key, make, retry_on=(DeadlineExceeded, DeadlinePassed, Busy))
    except (TimeoutError, DeadlineExceeded, DeadlinePassed):
        now = runtime.warmup.note if compiling else None
        raise NotRefined(f"not refined: {now or compiling or _LATE + _cheaper(options, output.source)}") from None
    finally:
        if not own:  # another's, which was waited for
            task.timings.waited(asked, time.perf_counter())


def on_cpu(task: ImageTask[Options]) -> bool:
    """Whether the dense CRF of this image, if it is asked for, takes the CPU's time."""
    gpu, options = task.runtime.gpu, task.options
    return options.refine == "dense" and not (options.crf_size == "input" and gpu is not None and gpu.alive)


def _cheaper(options: Options, source: tuple[int, int]) -> str:
    """What costs less than what was asked for."""
    if options.crf_size == "source":
        return ", or use crf_size=input"
    return ", or use crf=fast" if options.refine == "dense" and source[0] * source[1] <= _FAST_PX else ""


async def _on_device(task: ImageTask[Options], output: NetworkOutput, late: float) -> Array:
    assert task.runtime.gpu is not None
    fitted = await task.run(lambda: task.fitted)
    with task.timings.measure("crf"), _as_bad_option():
        return await task.runtime.gpu.refine(
            output.scores,
            output.code,
            fitted,
            _spec(task, output),
            task.options.crf_params,
            key=task.caller,
            priority=task.options.priority,
            deadline=late,
        )


def _in_a_process(task: ImageTask[Options], output: NetworkOutput, processes: ProcessPoolRefiner, late: float) -> Array:
    options, fitted = task.options, task.fitted
    photo = task.photo if options.crf_size == "source" else None  # it has to travel
    with task.timings.measure("crf"), _as_bad_option():
        return processes.refine(
            output.scores,
            output.code,
            fitted,
            spec=_spec(task, output),
            resolution=options.crf_size,
            photo=photo,
            params=options.crf_params,
            deadline=late,
        )


def _on_this_thread(task: ImageTask[Options], output: NetworkOutput, threads: int, until: Deadline) -> Array:
    options, fitted = task.options, task.fitted
    photo = task.photo if options.crf_size == "source" else None
    with task.timings.measure("crf"), _as_bad_option():
        return refinement.refine(
            output.scores,
            output.code,
            fitted,
            _spec(task, output),
            method=options.refine or "dense",
            resolution=options.crf_size,
            photo=photo,
            params=options.crf_params,
            threads=threads,
            deadline=until,
        )


def _spec(task: ImageTask[Options], output: NetworkOutput) -> CodeSpec:
    """How scores become probabilities: classes are told by cosines, whatever the clusters are told by, and as surely as
    their examples are told apart."""
    code = task.manifest.code
    if output.ids is None:
        return code
    return code.model_copy(update={"assignment": "cosine", "temperature": output.temperature or code.temperature})


@contextmanager
def _as_bad_option() -> Iterator[None]:
    """Deviations that do not go with this image's size are the caller's to change."""
    try:
        yield
    except (DeadlineExceeded, DeadlinePassed, NotOnDevice, ProcessLost, Busy):
        raise
    except TesseraError as error:
        raise BadOption(f"crf: {error}") from None
