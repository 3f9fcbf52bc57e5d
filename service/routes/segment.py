"""POST /segment: a request's images in, answers out.

Knows nothing of pixels: bodies are told apart in `body.py`, images segmented in `pipeline.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from models.errors import TesseraError
from models.image import ImageError
from service import body, openapi, render, schemas
from service.errors import BadOption, DeadlinePassed, explain, problem_of
from service.pipeline import segment
from service.registry import Served
from service.rooms import rooms_of
from service.schemas import DESCRIPTIONS, Options

T = TypeVar("T")
_INLINE_BYTES = 2**18  # parsing more than this is worth a thread
_AT_ONCE = 4  # of one request's images: the others' requests come in between

router = APIRouter()


@router.post(
    "/segment",
    operation_id="segment",
    summary="Label map of one or several images",
    response_model=schemas.Segmentation | schemas.Segmentations,
    responses=openapi.responses(400, 404, 408, 413, 415, 422, 503, 504, ok=openapi.FORMATS),
    openapi_extra=openapi.IMAGE_BODY,
)
async def segment_images(request: Request, options: Annotated[Options, Query()]) -> Response:
    rooms = rooms_of(request)
    rooms.registry.admit()
    with rooms.house.admission.hold() as hold:
        sent, options = await _read(request, options, hold)
        served = rooms.registry.get(options.model)
        renderer = _renderer(request, options, many=sent.many)
        limit_s = min(rooms.settings.timeout_s, (options.timeout_ms or 1e9) / 1000)
        try:
            async with asyncio.timeout(limit_s):
                if sent.many:
                    work = _several(request, sent.images, options, served)
                else:
                    work = _single(request, sent.images[0], options, renderer, served)
                content = await _while_connected(request, work)
        except TimeoutError:
            raise DeadlinePassed(
                f"no answer within {limit_s:g} s, the work was dropped; allow more with timeout_ms (the server's limit"
                f" is {rooms.settings.timeout_s * 1000:.0f}) or send a smaller image"
            ) from None
    request.state.model = served.bundle.ref
    return Response(content, media_type=renderer.media_type, headers={"vary": "accept"})


async def _read(request: Request, options: Options, hold: Callable[[int], None]) -> tuple[body.Sent, Options]:
    """The body's images, and the options with those of the form added."""
    rooms = rooms_of(request)
    settings = rooms.settings
    data = await body.read(request, hold, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)

    def parse() -> body.Sent:
        return body.parse(data, request.headers.get("content-type", ""), max_images=settings.max_images)

    big = len(data) > _INLINE_BYTES
    sent = await asyncio.get_running_loop().run_in_executor(rooms.house.workers, parse) if big else parse()
    if not sent.fields:
        return sent, options
    if twice := options.model_fields_set & set(sent.fields):
        raise BadOption(f"{min(twice)}: given twice, in the query and in the form")
    try:
        return sent, Options.model_validate({**options.model_dump(exclude_unset=True), **sent.fields})
    except ValidationError as error:
        raise BadOption(explain(error.errors(), DESCRIPTIONS)) from None


def _renderer(request: Request, options: Options, *, many: bool) -> render.Renderer:
    accept = request.headers.get("accept", "")
    if not many:
        return render.choose(options.format, accept)
    if options.format not in (None, "json"):
        raise BadOption(f"format: several images are answered as json only; send them singly for {options.format}")
    return render.choose("json", accept)


async def _single(request: Request, data: bytes, options: Options, renderer: render.Renderer, served: Served) -> bytes:
    timings: dict[str, float] = {}
    try:
        return await segment(data, options, renderer, served, rooms_of(request).house, timings)
    except ImageError as error:
        if type(error) is ImageError and "urlencoded" in request.headers.get("content-type", ""):
            raise ImageError(f"{error}. If this is curl -d: it changes files; use {body.CURL}") from None
        raise
    finally:  # a refusal's Server-Timing shows how far it came
        total = request.state.timings
        total.update({stage: total.get(stage, 0.0) + ms for stage, ms in timings.items()})


async def _several(request: Request, images: tuple[bytes, ...], options: Options, served: Served) -> bytes:
    """Answers in the images' order; one that cannot be answered has its problem in its place."""
    json = render.choose("json", "")
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(data: bytes) -> bytes:
        async with gate:
            try:
                return await _single(request, data, options, json, served)
            except BadOption:
                raise  # true of all of them
            except TesseraError as error:
                return bytes(JSONResponse(problem_of(error, request.state.request_id)).body)

    tasks = [asyncio.ensure_future(one(data)) for data in images]
    try:
        return b'{"results":[' + b",".join(await asyncio.gather(*tasks)) + b"]}"
    finally:
        for task in tasks:
            task.cancel()


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; when the client leaves, the work is cancelled and ClientDisconnect raised."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
