"""POST /segment and POST /similar: a request's images in, answers out.

Knows nothing of pixels: what is asked is read in `request.py`, images are segmented in `pipeline.py`.
"""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from models.errors import TesseraError
from service.api import answering, by_path, openapi, responses
from service.api.problems import problem_of
from service.api.request import InferenceRequest, read_request
from service.api.several import segment_each
from service.errors import BadOption, printable
from service.formats import archive, registry
from service.inference import pipeline
from service.inference.large_task import LargeTask
from service.inference.options import Options, SimilarOptions
from service.inference.task import ImageTask

_REFUSALS = (400, 401, 404, 406, 408, 413, 415, 422, 429, 503, 504)

_PLAIN = str.maketrans({"×": "x", "–": "-", "→": "->"})  # headers are ASCII
router = APIRouter(tags=["images"])


@router.post(
    "/segment",
    operation_id="segment",
    summary="Label map of one or several images",
    response_model=responses.Segmentation | responses.Segmentations | responses.RunLengths | responses.Coco,
    responses=openapi.responses(*_REFUSALS, 507, ok=openapi.FORMATS, headers=openapi.TOLD | openapi.OFFSET),
    openapi_extra=openapi.images(Options, form="SegmentForm"),
)
async def segment(request: Request) -> Response:
    async with read_request(request, Options, paths=True) as asked:
        renderer = _renderer(asked)
        headers = {"vary": "accept"}
        if asked.path is not None:
            answer, of_file = await by_path.segment(asked, asked.path, renderer)
            answer.headers.update(headers | _beside(of_file, renderer))
            return answer
        if asked.many:
            content = await _several(asked)
        else:
            work = partial(pipeline.segment, renderer=renderer)
            content, task = await answering.answer(asked, asked.task(asked.images[0]), work)
            headers |= _beside(task, renderer)
    return Response(content, media_type=renderer.media_type, headers=headers)


@router.post(
    "/similar",
    operation_id="similar",
    summary="How like one pixel of an image every other pixel is, or every pixel of a second image",
    response_class=Response,
    responses=openapi.responses(*_REFUSALS, ok=openapi.files("image/png", "application/x-npy"), headers=openapi.TOLD),
    openapi_extra=openapi.images(SimilarOptions, form="SimilarForm"),
)
async def similar(request: Request) -> Response:
    async with read_request(request, SimilarOptions) as asked:
        if asked.many and len(asked.images) != 2:
            raise BadOption("x, y: a pixel belongs to one image; send one, or a second one to look for the like of it")
        task = asked.task(asked.images[-1])
        if asked.many:  # by the default alone: a canary is asked about one image
            content = await pipeline.similar(task, asked.task(asked.images[0]))
        else:
            content, task = await answering.answer(asked, task, pipeline.similar)
    media_type = "image/png" if asked.options.format == "png" else "application/x-npy"
    return Response(content, media_type=openapi.media_type(request, media_type), headers=_told(task))


def _beside(task: ImageTask[Options] | LargeTask, renderer: registry.Renderer[bytes]) -> dict[str, str]:
    """What is told in the answer's head."""
    told = {} if renderer.name == "json" else _told(task)
    if renderer.offset and task.options.id_offset:
        told["x-id-offset"] = str(task.options.id_offset)
    return told


def _told(task: ImageTask[Any] | LargeTask) -> dict[str, str]:
    """What JSON says of an image, for answers that have no place for it but their head."""
    headers = {"x-orientation": str(task.orientation)}
    if task.known.familiarity is not None:
        headers["x-familiarity"] = str(task.known.familiarity)
    if task.warnings:
        headers["x-warning"] = printable("; ".join(task.warnings)).translate(_PLAIN).encode("ascii", "replace").decode()
    return headers


def _renderer(asked: InferenceRequest[Options]) -> registry.Renderer[bytes]:
    accept, format = asked.request.headers.get("accept", ""), asked.options.format
    if not asked.many:
        chosen = registry.choose(format, accept)
        if chosen.name == "zip":
            return archive.narrowed(asked.options.render.formats)
        if asked.options.formats:
            raise BadOption(f"formats: those in a zip, and this answer is {chosen.name}; ask for format=zip as well")
        return chosen
    if format not in (None, "json"):
        raise BadOption(f"format: several images are answered as json only; send them singly for {format}")
    return registry.choose("json", accept)


async def _several(asked: InferenceRequest[Options]) -> bytes:
    """Answers in the images' order; one that cannot be answered has its problem in its place."""
    answers = await segment_each(asked, registry.choose("json", ""))
    return b'{"results":[' + b",".join(_document(asked, answer) for answer in answers) + b"]}"


def _document(asked: InferenceRequest[Options], answer: bytes | TesseraError) -> bytes:
    if isinstance(answer, bytes):
        return answer
    return bytes(JSONResponse(problem_of(answer, asked.request.state.request_id)).body)
