"""Which model answers an image: the one that is named, the default, or the canary, whose failures nobody gets to see.

A request that names a model is never redirected, nor is one that names clusters, whose ids are the default's, or asks
for classes, which were taught to its network. Where the
canary cannot follow the options, is late, or fails, the default answers. Knows nothing of what is asked of a model.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from models.errors import TesseraError
from service.api.request import InferenceRequest
from service.engines.base import first_line
from service.errors import BadOption, Busy, DeadlinePassed, NetworkFailed
from service.inference import pipeline
from service.inference.options import ImageOptions, Options, SimilarOptions
from service.inference.results import NetworkOutput
from service.inference.task import ImageTask
from service.repository.served_model import Served

log = logging.getLogger("tessera")

O = TypeVar("O", bound=ImageOptions)  # noqa: E741
T = TypeVar("T")
_PART = 0.5  # of the time that a request has left, in which the canary answers


class _NoAnswer(Exception):
    """The canary has none. `why` says what is wrong with it; empty: nothing is, the image or its options are."""

    def __init__(self, why: str = "") -> None:
        self.why = why


async def answer(
    asked: InferenceRequest[O], task: ImageTask[O], work: Callable[[ImageTask[O]], Coroutine[Any, Any, T]]
) -> tuple[T, ImageTask[O]]:
    """What `work` makes of an image with the model whose turn it is, and the task that did it: the one that is given,
    or the canary's. Raises what `work` raises with the one that is given."""
    canary = asked.state.canary
    if canary.served is None or asked.options.model is not None:
        return await work(task), task
    digest = await task.hashed()
    served, why, left = canary.served, "", False
    if served is not None and canary.takes(digest) and _follows(asked.options, asked.served):
        try:
            return await _by_canary(asked, task, served, work)
        except _NoAnswer as none:
            why, left = none.why, not none.why
        asked.tasks.remove(task)
        asked.tasks.append(task)  # the last one is who answered
    content = await work(task)
    if why:  # and not the image's fault, as the default has an answer
        canary.failed(why)
    canary.answered(by_canary=False, left=left)
    return content, task


async def _by_canary(
    asked: InferenceRequest[O],
    of_default: ImageTask[O],
    served: Served,
    work: Callable[[ImageTask[O]], Coroutine[Any, Any, T]],
) -> tuple[T, ImageTask[O]]:
    """The same, of the canary. Raises _NoAnswer."""
    options = asked.options
    if not _follows(options, served) or (isinstance(options, Options) and (options.only or options.classes)):
        raise _NoAnswer
    limit_s = _PART * max(0.0, asked.deadline - time.monotonic())
    task = asked.task(of_default.data, served, digest=of_default.digest, limit_s=limit_s)
    heard: list[NetworkOutput] = []
    task.told = heard.append
    try:
        with asked.state.registry.hold(served):
            async with asyncio.timeout(limit_s):
                content = await work(task)
    except (TimeoutError, DeadlinePassed):
        raise _NoAnswer("" if options.timeout_ms else f"it took longer than {limit_s:.3g} s") from None
    except NetworkFailed as error:
        task.error = type(error).__name__
        raise _NoAnswer(str(error)) from None
    except Busy as error:
        raise _NoAnswer(str(error) if error.reason == "engine" else "") from None
    except TesseraError:
        raise _NoAnswer from None
    except Exception as error:
        task.error = type(error).__name__
        log.exception("%s, the canary, failed, request %s", served.bundle.ref, asked.request.state.request_id)
        raise _NoAnswer(first_line(error)) from None
    asked.tasks.remove(of_default)
    asked.state.canary.answered(by_canary=True)
    if heard and isinstance(options, Options):
        asked.state.comparisons.offer(task, heard[-1])  # type: ignore[arg-type]
    return content, task


def _follows(options: ImageOptions, served: Served) -> bool:
    """Whether a model can do what is asked."""
    if isinstance(options, SimilarOptions):
        return served.bundle.manifest.code.assignment == "cosine"
    if isinstance(options, Options):
        try:
            pipeline.vocabulary(options, served)
        except BadOption:
            return False
    return True
