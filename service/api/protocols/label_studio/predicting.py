"""The tasks of one /predict, a few of them at once: each has its regions, or what was wrong with it.

Knows nothing of bodies, of how an answer is written.
"""

import asyncio
import io
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np

from models.brush import strokes
from models.errors import TesseraError
from models.similarity import alike
from models.types import Array
from service.api.protocols.label_studio import clicks
from service.api.protocols.label_studio.labeling_config import LabelingConfig
from service.api.protocols.label_studio.predictions import Labeled, brush, label, region
from service.api.protocols.label_studio.requests import Asked, text_at
from service.api.protocols.label_studio.task_images import OpenTaskImages
from service.api.request import InferenceRequest
from service.errors import Busy, DeadlinePassed
from service.formats.registry import Renderer
from service.inference import pipeline
from service.inference.options import Options, SimilarOptions

_AT_ONCE = 4  # tasks of one request: the others' requests come in between
_BYTES = 16  # for each pixel, that regions and their map hold
_LEFT_S = 1.0  # of a request's time, in which its answer is put together


async def predict_each(
    work: InferenceRequest[Options], asked: Asked, images: OpenTaskImages
) -> list[Labeled | TesseraError]:
    """Every task's answer, or what was wrong with it: also when time is up before all of them are done."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(data: Mapping[str, Any]) -> Labeled | TesseraError:
        while True:
            try:
                async with gate:
                    if asked.prompt is not None:
                        return await _clicked(work, asked.config, asked.prompt, data, images)
                    return await _labeled(work, asked.config, data, images)
            except Busy as error:  # Label Studio asks once
                if time.monotonic() + error.retry_after_s > work.deadline - _LEFT_S:
                    return error
                await asyncio.sleep(error.retry_after_s)
            except TesseraError as error:
                return error

    tasks = [asyncio.ensure_future(one(data)) for data in asked.tasks]
    left_s = work.deadline - time.monotonic()
    try:
        await asyncio.wait(tasks, timeout=left_s - min(_LEFT_S, left_s / 10))
        late = DeadlinePassed(
            "there was no time left for this task of the batch; it is tried again when asked for again"
        )
        return [task.result() if task.done() else late for task in tasks]
    finally:
        for task in tasks:
            task.cancel()


async def _labeled(
    work: InferenceRequest[Options], config: LabelingConfig, data: Mapping[str, Any], images: OpenTaskImages
) -> Labeled:
    """All images of one task."""
    parts: list[Labeled] = []
    for tag, key in config.images.items():
        with work.state.runtime.admission.hold() as hold:
            file = await images.read(text_at(data, key), hold)
            renderer = Renderer(partial(label, controls=config.of(tag), image=tag), margin="grid", bytes_per_px=_BYTES)
            task = work.task(file)
            parts.append(await pipeline.segment(task, renderer))
            parts[-1].warnings.extend(task.warnings)
    return Labeled(
        [one for part in parts for one in part.regions],
        sum(part.sure for part in parts),
        sum(part.pixels for part in parts),
        [one for part in parts for one in part.warnings],
    )


async def _clicked(
    work: InferenceRequest[Options],
    config: LabelingConfig,
    prompt: clicks.Prompt,
    data: Mapping[str, Any],
    images: OpenTaskImages,
) -> Labeled:
    """What is like the places that were clicked."""
    control, chosen = clicks.tool_of(config, prompt)
    workers = work.state.runtime.workers
    likest: dict[bool, Array] = {}  # of what is meant, and of what is not

    def fold(meant: bool, content: bytes) -> None:
        cosines = np.load(io.BytesIO(content))
        likest[meant] = np.maximum(likest[meant], cosines) if meant in likest else cosines

    def draw() -> Labeled:
        mask = alike([likest[True]], [likest[False]] if False in likest else [])
        pixels = int(mask.sum())
        if not pixels:
            return Labeled([], 0.0, 0, ["nothing is more like what is meant than like what is not"])
        sure = float(likest[True][mask].sum())
        drawn = region(control, prompt.image, mask.shape, chosen, sure / pixels, brush(strokes(mask.view(np.uint8))[1]))
        return Labeled([drawn], sure, pixels, [])

    with work.state.runtime.admission.hold() as hold:
        file = await images.read(text_at(data, config.images[prompt.image]), hold)
        for click in prompt.clicks:
            x, y = click.pixel(prompt.size)
            options = SimilarOptions(x=x, y=y, format="npy", model=work.options.model)
            task = cast("InferenceRequest[Any]", replace(work, options=cast(Any, options))).task(file)
            content = await pipeline.similar(task)
            if click.meant not in likest:
                hold(len(content))
            await workers.submit(partial(fold, click.meant, content), key=work.caller)
        done: Labeled = (await workers.submit(draw, key=work.caller)).answer
    return done
