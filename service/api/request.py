"""A request with images: who sends it, what it brings, what it chooses, and for how long its answer is wanted.

Knows nothing of pixels or answers: bodies are told apart in `body.py`, images go their way in `pipeline.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from models.io.samples import ImageError
from service.api import body
from service.api.dependencies import known_caller, state_of
from service.api.state import AppState
from service.errors import BadOption, DeadlinePassed, explain
from service.inference.options import ImageOptions, descriptions
from service.inference.task import Order
from service.repository.served_model import Served

O = TypeVar("O", bound=ImageOptions)  # noqa: E741
_INLINE_BYTES = 2**18  # parsing more than this is worth a thread


@dataclass(frozen=True)
class InferenceRequest(Generic[O]):
    """What came.

    images  the files' bytes, at least one;  many  whether the answer is a list
    """

    request: Request
    state: AppState
    options: O
    images: tuple[bytes, ...]
    many: bool
    served: Served
    caller: str
    deadline: float

    def order(self, image: bytes, timings: dict[str, float]) -> Order:
        """One of the images, for the pipeline."""
        return Order(image, self.options, self.served, self.state.runtime, timings, self.caller, self.deadline)

    @asynccontextmanager
    async def image(self, data: bytes) -> AsyncIterator[Order]:
        """Around one image's work: its times go into the request's, also when it is refused."""
        timings: dict[str, float] = {}
        try:
            yield self.order(data, timings)
        except ImageError as error:
            if type(error) is ImageError and "urlencoded" in self.request.headers.get("content-type", ""):
                raise ImageError(f"{error}. If this is curl -d: it changes files; use {body.CURL}") from None
            raise
        finally:
            total = self.request.state.timings
            for stage, ms in timings.items():
                total[stage] = total.get(stage, 0.0) + ms


@asynccontextmanager
async def read_request(request: Request, model: type[O]) -> AsyncIterator[InferenceRequest[O]]:
    """What a request asks, read within limits; the block ends when its time is up or its client leaves.

    Raises Busy, KeyMissing, BadBody and its kin, BadOption, NotFound, DeadlinePassed, ClientDisconnect.
    """
    state = state_of(request)
    state.registry.admit()
    caller = known_caller(request)
    given, options = _query(model, request.scope["query_string"])
    with state.runtime.admission.hold() as hold:
        parsed = await _read(request, state, hold)
        if twice := given.keys() & parsed.fields.keys():
            raise BadOption(f"{min(twice)}: given twice, in the query and in the form")
        if parsed.fields or options is None:
            options = _checked(model, {**given, **parsed.fields})
        with state.registry.use(options.model) as served:
            limit_s = min(state.settings.timeout_s, (options.timeout_ms or 1e9) / 1000)
            async with _while_connected(request, limit_s):
                deadline = time.monotonic() + limit_s
                yield InferenceRequest(request, state, options, parsed.images, parsed.many, served, caller, deadline)
    request.state.model = served.bundle.ref


@lru_cache(1024)
def _query(model: type[O], query: bytes) -> tuple[Mapping[str, str], O | None]:
    """What a query says, and the options it makes; None where some are missing, which a form may still bring."""
    given: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in given:
            raise BadOption(f"{name[:60]}: given twice")
        given[name] = value
    needed = {name for name, field in model.model_fields.items() if field.is_required()}
    if needed <= given.keys():
        return given, _checked(model, given)
    _checked(model, {**dict.fromkeys(needed, "0"), **given})
    return given, None


def _checked(model: type[O], given: Mapping[str, str]) -> O:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise BadOption(explain(error.errors(), descriptions(model))) from None


async def _read(request: Request, state: AppState, hold: Callable[[int], None]) -> body.ParsedBody:
    settings = state.settings
    data = await body.read(request, hold, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)

    def parse() -> body.ParsedBody:
        return body.parse(data, request.headers.get("content-type", ""), max_images=settings.max_images)

    big = len(data) > _INLINE_BYTES
    return await asyncio.get_running_loop().run_in_executor(state.runtime.workers, parse) if big else parse()


@asynccontextmanager
async def _while_connected(request: Request, limit_s: float) -> AsyncIterator[None]:
    """Around work that ends when its time is up, or its client leaves. Raises DeadlinePassed, ClientDisconnect."""
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        clock.reschedule(0)

    try:
        async with asyncio.timeout(limit_s) as clock:
            watching = asyncio.ensure_future(watch())
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        if left:
            raise ClientDisconnect from None
        most = state_of(request).settings.timeout_s * 1000
        raise DeadlinePassed(
            f"no answer within {limit_s:g} s, the work was dropped; allow more with timeout_ms (the server's limit is"
            f" {most:.0f}) or send a smaller image"
        ) from None
