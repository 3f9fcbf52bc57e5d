"""One image of a job, by the way that a request's goes: its answers are the bytes that `POST /segment` gives.

Knows nothing of jobs, of files, of HTTP. It stands behind everybody who waits, in every queue of the house.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from models.errors import TesseraError
from service.errors import BadOption, Busy, NetworkFailed, NetworkNotFinite, explain
from service.formats.registry import Renderer
from service.inference import pipeline
from service.inference.options import Options, descriptions
from service.inference.runtime import Runtime
from service.inference.task import ImageTask
from service.offline.runner import passes
from service.repository.registry import Registry
from service.scheduling.fair_queue import BACKGROUND

_TRIES = 4  # of one image, whose network fails
_WAIT_S = 2.0  # at most, until it is asked again whether there is room, or another network
_LATELY_S = 1.0  # who asked so lately asks again: what has begun then is what a request waits for
_PATIENCE = 20  # times the server's limit for a request: a job's image waits behind all of them


class Answers:
    """What is made of every image of a job.

    model    name@digest12, looked up for each image: it may be swapped meanwhile
    every    while requests come, an image's time is one of so many: it rests for the others
    stopped  whether to begin nothing more
    job      whose images they are, for traces

    Raises BadOption for options that this version does not know.
    """

    def __init__(
        self,
        options: Mapping[str, str],
        formats: Sequence[str],
        model: str,
        *,
        registry: Registry,
        runtime: Runtime,
        timeout_s: float,
        every: int,
        job: str = "",
    ) -> None:
        self._options = parsed(options)
        self._passes = passes(formats, self._options)
        self._model, self._registry, self._runtime = model, registry, runtime
        self._every, self._took_s, self._job = every, 0.0, job
        given_ms = self._options.timeout_ms
        self._limit_s = _PATIENCE * timeout_s if given_ms is None else given_ms / 1000

    def check(self, size: int) -> None:
        """Before a file of so many bytes is read. Raises ImageTooLarge."""
        self._runtime.limits.check_bytes(size)

    async def of(self, data: bytes, name: str, stopped: Callable[[], bool]) -> dict[str, bytes] | None:
        """An image's file in every format; None where it was stopped before it began.

        name  what it is called

        Raises what `pipeline.segment` raises but Busy, and NotFound where the model is not served any more.
        """
        if self._runtime.admission.asked_within(_LATELY_S):
            await asyncio.sleep(min(_WAIT_S, self._took_s * (self._every - 1)))
        answers: dict[str, bytes] = {}
        began = time.monotonic()
        for renderer in self._passes:
            found = await self._one(data, self._options.of_file(name), renderer, stopped)
            if found is None:
                return None
            answers |= found
        self._took_s = time.monotonic() - began
        return answers

    async def _one(
        self, data: bytes, options: Options, renderer: Renderer[dict[str, bytes]], stopped: Callable[[], bool]
    ) -> dict[str, bytes] | None:
        tries = 0
        while not stopped():
            try:
                with self._registry.use(self._model) as served:
                    task = ImageTask(
                        data, options, served, self._runtime, BACKGROUND, time.monotonic() + self._limit_s, True
                    )
                    try:
                        return await pipeline.segment(task, renderer)
                    except TesseraError as error:
                        task.error = type(error).__name__
                        raise
                    finally:
                        self._trace(task)
            except Busy as error:
                await asyncio.sleep(min(_WAIT_S, error.retry_after_s))
            except NetworkNotFinite:
                raise
            except NetworkFailed:
                tries += 1
                if tries == _TRIES:
                    raise
                await asyncio.sleep(_WAIT_S)
        return None

    def _trace(self, task: ImageTask[Options]) -> None:
        if (tracer := self._runtime.tracer) is not None:
            done = task.traced()
            told = {"tessera.job.id": self._job, "tessera.model": self._model}
            tracer.image("job image", done._replace(attributes={**done.attributes, **told}))


def parsed(given: Mapping[str, Any]) -> Options:
    """The options of every image. Raises BadOption."""
    try:
        return Options.model_validate(given)
    except ValidationError as error:
        raise BadOption(explain(error.errors(), descriptions(Options))) from None
