"""Hugging Face's image-segmentation task at POST /hf and /hf/{model}, as `huggingface_hub.InferenceClient` speaks it.

The body is an image file, or JSON with the file in base64 and parameters; the answer a list of labels, scores, masks.
Options of `POST /segment` may stand in the URL, or among the parameters.

Knows nothing of how an image is segmented.
"""

import base64
from collections.abc import Coroutine
from typing import Any, NamedTuple

import numpy as np
import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from models.deadline import Deadline
from models.io.png import encode_gray
from service.api import answering, body, openapi
from service.api.dependencies import allowed_caller
from service.api.protocols.parameters import options_of
from service.api.protocols.raw_body import raw_body
from service.api.request import begun
from service.errors import BadBody, BadOption, explain
from service.formats.registry import Margin, Renderer
from service.formats.result import SegmentationResult
from service.inference import pipeline
from service.inference.options import Frozen, Options, descriptions
from service.inference.task import ImageTask

_HINT = 'send the image file itself, or {"inputs": "<base64 of it>", "parameters": {…}}'
_SUBTASKS = (
    "subtask: clusters are found by what they look like, so there is semantic segmentation alone, and no object is told"
    " from another of its kind; leave subtask out, or send semantic"
)

router = APIRouter(tags=["hugging face"])


class Thresholds(Frozen):
    """What the task's own parameters say; an image's clusters share no pixel, whatever they are."""

    threshold: float = Field(default=0.0, ge=0, le=1, description="0 to 1: segments with a lower score are left out")
    mask_threshold: float = Field(default=0.0, ge=0, le=1, description="0 to 1: the margin that a mask's pixels have")
    overlap_mask_area_threshold: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="0 to 1: segments of which mask_threshold leaves a smaller share are left out",
    )


class Segment(BaseModel):
    """One cluster of the image."""

    label: str
    score: float = Field(description="mean margin over its pixels, 0 to 1")
    mask: str = Field(description="base64 of a PNG of the image's size, mode L: 255 where the segment is, else 0")


class _Asked(NamedTuple):
    image: bytes
    parameters: dict[str, Any]


_BODY: dict[str, Any] = {
    **openapi.in_query(Options, "model", "format"),
    "requestBody": {
        "required": True,
        "description": "An image file of any Content-Type, or JSON.",
        "content": {
            "application/octet-stream": openapi.BINARY,
            "image/*": openapi.BINARY,
            "application/json": {
                "schema": openapi.fields(
                    {
                        "inputs": {"type": "string", "description": "base64 of the image file"},
                        "parameters": Thresholds.model_json_schema() | {"additionalProperties": True},
                    },
                    "inputs",
                )
            },
        },
    },
}
_OPERATION: dict[str, Any] = {
    "summary": "Hugging Face image-segmentation",
    "response_model": list[Segment],
    "responses": openapi.responses(400, 401, 404, 408, 413, 415, 422, 503, 504, refusal=openapi.LONE),
}


@router.post("/hf", operation_id="hfSegment", openapi_extra=_BODY, **_OPERATION)
@router.post(
    "/hf/{model}", operation_id="hfSegmentBy", openapi_extra=openapi.in_path("model", also=_BODY), **_OPERATION
)
async def segment(request: Request) -> Response:
    caller = allowed_caller(request, "infer")
    async with raw_body(request, caller) as raw:
        image, parameters = await raw.parse(_read)
        thresholds = _thresholds(parameters)
        options = options_of(parameters, request.scope["query_string"], model=request.path_params.get("model"))
        async with begun(request, options, [image], caller) as asked:
            margin: Margin = "full" if thresholds.mask_threshold else "grid"

            def work(task: ImageTask[Options]) -> Coroutine[Any, Any, bytes]:
                renderer = Renderer[bytes](lambda result: _segments(result, thresholds, task.until), margin=margin)
                return pipeline.segment(task, renderer)

            content, _ = await answering.answer(asked, asked.task(image), work)
    return Response(content, media_type="application/json")


def _read(data: bytes) -> _Asked:
    """The image, and the parameters beside it. Raises BadBody."""
    if not data:
        raise BadBody(f"the body is empty; {_HINT}")
    if not data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _Asked(data, {})
    try:
        document = from_json(data.lstrip(b"\xef\xbb\xbf"), allow_inf_nan=False)
    except ValueError as error:
        raise BadBody(f"the body begins as JSON but is not: {error}; {_HINT}") from None
    text, parameters = document.get("inputs"), document.get("parameters") or {}
    if not isinstance(text, str) or not isinstance(parameters, dict):
        raise BadBody(f'"inputs" is a base64 text, and "parameters", if any, an object; {_HINT}')
    if text[:8].lower().startswith(("http://", "https://")):
        raise BadBody(f"nothing is fetched from an address; {_HINT}")
    return _Asked(body.base64_file(text, 0), {name: value for name, value in parameters.items() if value is not None})


def _thresholds(parameters: dict[str, Any]) -> Thresholds:
    """Those among the parameters, which are taken out. Raises BadBody for other tasks, BadOption."""
    if parameters.pop("subtask", "semantic") != "semantic":
        raise BadBody(_SUBTASKS)
    own = {name: parameters.pop(name) for name in Thresholds.model_fields if name in parameters}
    try:
        return Thresholds.model_validate(own)
    except ValidationError as error:
        raise BadOption(explain(error.errors(), descriptions(Thresholds))) from None


def _segments(result: SegmentationResult, thresholds: Thresholds, until: Deadline) -> bytes:
    """The answer: clusters that are drawn, largest first, each with a mask."""
    drawn, sure = result.drawn, None
    if thresholds.mask_threshold:
        assert result.margin is not None
        sure = result.margin >= thresholds.mask_threshold
    segments: list[dict[str, Any]] = []
    for area in result.areas:
        score = round(area.confidence, 4)
        if score < thresholds.threshold or (drawn is not None and area.id not in drawn):
            continue
        until.check()
        mask = result.labels == area.id
        if sure is not None:
            mask &= sure
            left = np.count_nonzero(mask) / area.pixels
            if not left or left < thresholds.overlap_mask_area_threshold:
                continue
        file = base64.b64encode(encode_gray(mask.view(np.uint8) * np.uint8(255))).decode()
        segments.append({"label": result.style.names[area.id], "score": score, "mask": file})
    return orjson.dumps(segments)
