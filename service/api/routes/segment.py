"""POST /segment and POST /similar: a request's images in, answers out.

Knows nothing of pixels: what is asked is read in `request.py`, images are segmented in `pipeline.py`.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from models.errors import TesseraError
from service.api import openapi, responses
from service.api.problems import problem_of
from service.api.request import InferenceRequest, read_request
from service.errors import BadOption
from service.formats import registry
from service.inference import pipeline
from service.inference.options import Options, SimilarOptions
from service.inference.pipeline import Answer

_AT_ONCE = 4  # of one request's images: the others' requests come in between
_REFUSALS = (400, 401, 404, 408, 413, 415, 422, 429, 503, 504)

router = APIRouter()


@router.post(
    "/segment",
    operation_id="segment",
    summary="Label map of one or several images",
    response_model=responses.Segmentation | responses.Segmentations,
    responses=openapi.responses(*_REFUSALS, ok=openapi.FORMATS),
    openapi_extra=openapi.images(Options),
)
async def segment(request: Request) -> Response:
    async with read_request(request, Options) as ask:
        renderer = _renderer(ask)
        answer = await (_several(ask) if ask.many else _single(ask, ask.images[0], renderer))
    headers = {"vary": "accept"}
    if answer.warnings and renderer.name != "json":
        headers["x-warning"] = "; ".join(answer.warnings).encode("ascii", "replace").decode()
    return Response(answer.body, media_type=renderer.media_type, headers=headers)


@router.post(
    "/similar",
    operation_id="similar",
    summary="How like one pixel of an image every other pixel is, in the network's own terms",
    response_class=Response,
    responses=openapi.responses(*_REFUSALS, ok={"image/png": openapi.BINARY, "application/x-npy": openapi.BINARY}),
    openapi_extra=openapi.images(SimilarOptions),
)
async def similar(request: Request) -> Response:
    async with read_request(request, SimilarOptions) as ask:
        if ask.many:
            raise BadOption("x, y: a pixel belongs to one image; send one")
        async with ask.image(ask.images[0]) as order:
            content = await pipeline.similar(order, ask.options)
    return Response(content, media_type="image/png" if ask.options.format == "png" else "application/x-npy")


def _renderer(ask: InferenceRequest[Options]) -> registry.Renderer:
    accept, format = ask.request.headers.get("accept", ""), ask.options.format
    if not ask.many:
        return registry.choose(format, accept)
    if format not in (None, "json"):
        raise BadOption(f"format: several images are answered as json only; send them singly for {format}")
    return registry.choose("json", accept)


async def _single(ask: InferenceRequest[Options], data: bytes, renderer: registry.Renderer) -> Answer:
    async with ask.image(data) as order:
        return await pipeline.segment(order, ask.options, renderer)


async def _several(ask: InferenceRequest[Options]) -> Answer:
    """Answers in the images' order; one that cannot be answered has its problem in its place."""
    json = registry.choose("json", "")
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(data: bytes) -> bytes:
        async with gate:
            try:
                return (await _single(ask, data, json)).body
            except BadOption:
                raise  # true of all of them
            except TesseraError as error:
                return bytes(JSONResponse(problem_of(error, ask.request.state.request_id)).body)

    tasks = [asyncio.ensure_future(one(data)) for data in ask.images]
    try:
        return Answer(b'{"results":[' + b",".join(await asyncio.gather(*tasks)) + b"]}", ())
    finally:
        for task in tasks:
            task.cancel()
