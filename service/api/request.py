"""Requests, parsed: who sends one, what it brings and chooses, and for how long its answer is wanted.

Knows nothing of pixels or answers: bodies are told apart in `body.py`, images go their way in `pipeline.py`.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from models.io.pixels import Pixels
from models.io.samples import ImageError
from service.api import body
from service.api.dependencies import allowed_caller, state_of
from service.api.key_settings import Scope
from service.api.state import AppState
from service.errors import BadBody, BadOption, BodyTooLarge, DeadlinePassed, explain, quoted
from service.inference.options import ImageOptions, descriptions
from service.inference.task import ImageTask
from service.repository.served_model import Served

log = logging.getLogger("tessera")

M = TypeVar("M", bound=BaseModel)
O = TypeVar("O", bound=ImageOptions)  # noqa: E741
_JSON_BYTES = 2**16
_INLINE_BYTES = 2**18  # parsing more than this is worth a thread


@dataclass(frozen=True)
class InferenceRequest(Generic[O]):
    """A request with images, parsed.

    images  the files' bytes or pixels, at least one;  many  whether the answer is a list
    mask    a file that marks a place in the image, where one may be sent
    tasks   those begun, whose times are the request's
    """

    request: Request
    state: AppState
    options: O
    images: tuple[bytes | Pixels, ...]
    many: bool
    served: Served
    caller: str
    deadline: float
    path: str | None = None
    mask: bytes | None = None
    tasks: list[ImageTask[O]] = field(default_factory=list)

    def task(
        self, image: bytes | Pixels, served: Served | None = None, *, digest: bytes | None = None, limit_s: float = inf
    ) -> ImageTask[O]:
        """One of the images, for the pipeline.

        served   the model, where it is another one;  digest  of the image, where it is known
        limit_s  in which it has to be done, if the request's time is not shorter
        """
        deadline = min(self.deadline, time.monotonic() + limit_s)
        task = ImageTask(image, self.options, served or self.served, self.state.runtime, self.caller, deadline)
        task.digest = digest
        self.tasks.append(task)
        return task


@asynccontextmanager
async def read_request(
    request: Request, model: type[O], *, paths: bool = False, mask: bool = False, scope: Scope = "infer"
) -> AsyncIterator[InferenceRequest[O]]:
    """What a request asks, read within limits; the block ends when its time is up or its client leaves.

    paths  whether it may name a file of this machine in place of images;  mask  whether a mask may come beside them
    scope  what its key has to be allowed

    Raises Busy, KeyMissing, NotAllowed, BadBody and its kin, BadOption, NotFound, DeadlinePassed, ClientDisconnect.
    """
    state = state_of(request)
    caller = allowed_caller(request, scope)
    given, options = query_options(model, request.scope["query_string"])
    with state.runtime.admission.hold() as hold:
        images, fields, many, path, marked = await _read(request, state, hold, caller, mask=mask)
        if path is not None and not paths:
            raise BadBody('"path" is read by POST /segment alone; send the image')
        if twice := given.keys() & fields.keys():
            raise BadOption(f"{quoted(min(twice))}: given twice, in the query and in the form")
        if fields or options is None:
            options = checked(model, {**given, **fields})
        async with begun(request, options, images, caller, many=many, path=path, mask=marked) as asked:
            yield asked


@asynccontextmanager
async def begun(
    request: Request,
    options: O,
    images: Sequence[bytes | Pixels],
    caller: str,
    *,
    many: bool = False,
    path: str | None = None,
    mask: bytes | None = None,
) -> AsyncIterator[InferenceRequest[O]]:
    """Around the work on images that have been read: it ends when its time is up or its client leaves.

    Raises Busy, NotFound, DeadlinePassed, ClientDisconnect.
    """
    state = state_of(request)
    with state.registry.use(options.model) as served, _counted(served):
        limit_s = min(state.settings.timeout_s, (options.timeout_ms or 1e9) / 1000)
        async with _while_connected(request, limit_s):
            deadline = time.monotonic() + limit_s
            asked = InferenceRequest(request, state, options, tuple(images), many, served, caller, deadline, path, mask)
            try:
                yield asked
            except ImageError as error:
                whole = len(asked.images) == 1 and str(len(asked.images[0])) == request.headers.get("content-length")
                if whole and type(error) is ImageError and "urlencoded" in request.headers.get("content-type", ""):
                    raise ImageError(f"{error}. If this is curl -d: it changes files; use {body.CURL}") from None
                raise
            finally:
                for task in asked.tasks:
                    request.state.timings.add(task.timings.so_far())
                if (trace := request.state.trace) is not None:
                    trace.images += [task.traced() for task in asked.tasks]
    answered = asked.tasks[-1].served if len(images) == 1 and asked.tasks else served
    request.state.model = answered.bundle.ref


async def read_json(request: Request, model: type[M], *, hint: str, empty: bytes = b"") -> M:
    """A small JSON body as a model.

    hint   what to send instead of a body that is no JSON;  empty  what an empty body stands for

    Raises BadBody and its kin, BadOption.
    """
    state = state_of(request)
    with state.runtime.admission.hold() as hold:
        data = await body.read(
            request,
            hold,
            max_bytes=_JSON_BYTES,
            timeout_s=state.settings.body_timeout_s,
            too_large=lambda most: BodyTooLarge(
                f"the body has more than the {most // 1024} KiB that are read here; {hint}"
            ),
        )
    data = data.strip() or empty
    try:
        read = model.model_validate_json(data, strict=True)
        json.loads(data, object_pairs_hook=_unique)  # now that it is known to be small and flat
        return read
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise BadBody(f"the body is not JSON; {hint}") from None
        raise BadOption(explain(error.errors(), descriptions(model))) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises BadOption for one with a key twice, of which readers take now the first, now the last."""
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadOption(f"{next(name for name in names if names.count(name) > 1)[:60]}: given twice")
    return document


@lru_cache(1024)
def query_options(model: type[O], query: bytes) -> tuple[Mapping[str, str], O | None]:
    """What a query says, and the options it makes; None where some are missing, which a form may still bring."""
    given: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in given:
            raise BadOption(f"{quoted(name)}: given twice")
        given[name] = value
    needed = {name for name, field in model.model_fields.items() if field.is_required()}
    if needed <= given.keys():
        return given, checked(model, given)
    checked(model, {**dict.fromkeys(needed, "0"), **given})
    return given, None


def checked(model: type[O], given: Mapping[str, str]) -> O:
    """The options that a request's words make. Raises BadOption."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise BadOption(explain(error.errors(), descriptions(model))) from None


async def _read(
    request: Request, state: AppState, hold: Callable[[int], None], caller: str, *, mask: bool
) -> body.ParsedBody:
    settings = state.settings
    data = await body.read(request, hold, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)

    def parse() -> body.ParsedBody:
        return body.parse(data, request.headers.get("content-type", ""), max_images=settings.max_images, mask=mask)

    return (await state.runtime.workers.submit(parse, key=caller)).answer if len(data) > _INLINE_BYTES else parse()


@contextmanager
def _counted(served: Served) -> Iterator[None]:
    """Around the work on a request, which counts among what the model has done."""
    began, succeeded = time.perf_counter(), False
    try:
        yield
        succeeded = True
    finally:
        served.statistics.request((time.perf_counter() - began) * 1000, succeeded=succeeded)


@asynccontextmanager
async def _while_connected(request: Request, limit_s: float) -> AsyncIterator[None]:
    """Around work that ends when its time is up, or its client leaves. Raises DeadlinePassed, ClientDisconnect."""
    left = False

    async def watch() -> None:
        nonlocal left
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
        except Exception:  # nobody awaits this
            log.exception("a client can no longer be watched; it counts as gone")
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
