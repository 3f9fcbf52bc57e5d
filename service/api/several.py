"""Several images of one request: a few of them at once, each with its answer or what was wrong with it.

Knows nothing of pixels, of how an answer or a problem is written.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from models.errors import TesseraError
from models.io.pixels import Pixels
from service.api import answering
from service.api.request import InferenceRequest
from service.errors import BadOption
from service.formats.registry import Renderer
from service.inference import pipeline
from service.inference.options import Options

T = TypeVar("T")
_AT_ONCE = 4  # of one request's images: the others' requests come in between


async def segment_each(
    asked: InferenceRequest[Options], renderer: Renderer[T], done: Callable[[T], object] = lambda _: None
) -> list[T | TesseraError]:
    """Answers in the images' order; one that cannot be answered has its error in its place.

    done  is told of each answer at once; what it raises ends all of them

    Raises BadOption, which is true of all of them.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(image: bytes | Pixels) -> T | TesseraError:
        async with gate:
            task = asked.task(image)
            try:
                answer, _ = await answering.answer(asked, task, partial(pipeline.segment, renderer=renderer))
            except BadOption:
                raise
            except TesseraError as error:
                task.error = type(error).__name__
                return error
        done(answer)
        return answer

    tasks = [asyncio.ensure_future(one(image)) for image in asked.images]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
