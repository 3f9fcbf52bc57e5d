"""X-AnyLabeling's remote server: its list of models, and polygons of an image, under /x-anylabeling.

Its shapes have no holes: a hole hangs on its outline by a bridge without width. Its refusals are
`{"success": false, …}`, with the status that says so, because its client looks at that first.

Knows nothing of how an image is segmented.
"""

from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from models.bridges import bridged
from models.deadline import Deadline
from service.api import body, openapi
from service.api.dependencies import allowed_caller, known_caller, state_of
from service.api.protocols.largest_regions import largest_regions
from service.api.protocols.parameters import options_of
from service.api.protocols.raw_body import raw_body
from service.api.request import begun
from service.errors import BadBody, BadOption
from service.formats.registry import Renderer
from service.formats.result import NO_DATA, SegmentationResult
from service.inference import pipeline

MOST_SHAPES = 2000
_THEIRS = ("iou_threshold", "epsilon_factor", "text_prompt", "marks", "reset_tracker", "current_task")
_WIDGETS = (("button_run", None), ("edit_conf", 0.0), ("toggle_preserve_existing_annotations", False))

router = APIRouter(prefix="/x-anylabeling/v1", tags=["x-anylabeling"])


class ImagePredictBody(BaseModel):
    """One image, and what is asked of it."""

    model: str = Field(description="a bundle's name, or name@digest12")
    image: str = Field(description="data: URI, or base64")
    params: dict[str, Any] = Field(
        default={}, description="conf_threshold, and the options of POST /segment; others of its own are passed over"
    )


class Widget(BaseModel):
    """A control that the client shows for a model."""

    name: str
    value: Any = None


class Model(BaseModel):
    """A bundle as the client shows it."""

    display_name: str
    classes: list[str]
    widgets: list[Widget]
    batch_processing_mode: str = "default"


class Models(BaseModel):
    """All of them, by the name that `predict` takes."""

    success: bool = True
    data: dict[str, Model]


class Shape(BaseModel):
    """One region; points are x, y in pixels, and the last joins the first."""

    label: str
    shape_type: str = "polygon"
    points: list[tuple[float, float]]
    score: float = Field(description="mean margin, 0 to 1")


class FoundShapes(BaseModel):
    """An image's regions, the largest first; `description` is what people are told of it."""

    shapes: list[Shape]
    description: str = ""
    replace: bool = True


class Predicted(BaseModel):
    """The answer."""

    success: bool = True
    data: FoundShapes


@router.get(
    "/models",
    operation_id="xAnyLabelingModels",
    summary="The models that can be asked",
    response_model=Models,
    responses=openapi.responses(401, 503, refusal=openapi.UNSUCCESSFUL),
)
async def models(request: Request) -> Models:
    known_caller(request)
    widgets = [Widget(name=name, value=value) for name, value in _WIDGETS]
    return Models(
        data={
            served.name: Model(
                display_name=f"Tessera {served.name}",
                classes=[n for i, n in enumerate(served.clusters.style.names) if i not in served.clusters.style.hidden],
                widgets=widgets,
            )
            for served in state_of(request).registry.named
        }
    )


@router.post(
    "/predict",
    operation_id="xAnyLabelingPredict",
    summary="Shapes in one image",
    response_model=Predicted,
    responses=openapi.responses(400, 401, 404, 408, 413, 415, 422, 503, 504, refusal=openapi.UNSUCCESSFUL),
    openapi_extra=openapi.json_body(ImagePredictBody, required=True),
)
async def predict(request: Request) -> Response:
    caller = allowed_caller(request, "infer")
    async with raw_body(request, caller) as raw:
        model, image, params = await raw.parse(_read)
        least = _confidence(params.pop("conf_threshold", None))
        options = options_of(params, model=model)
        async with begun(request, options, [image], caller) as asked:
            task = asked.task(image)
            until = task.until
            renderer = Renderer[bytes](lambda result: _shapes(result, least, until), margin="grid", bytes_per_px=16)
            content = await pipeline.segment(task, renderer)
    return Response(content, media_type="application/json")


def _read(data: bytes) -> tuple[str, bytes, dict[str, Any]]:
    """Model, file and parameters. Raises BadBody."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadBody(f"the body is no JSON: {error}") from None
    model, image, params = (
        (document.get("model"), document.get("image"), document.get("params") or {})
        if isinstance(document, dict)
        else (None, None, {})
    )
    if not isinstance(model, str) or not isinstance(image, str) or not isinstance(params, dict):
        raise BadBody('"model" is a name, "image" a data: URI or base64, "params", if any, an object')
    given = {name: value for name, value in params.items() if name not in _THEIRS and value is not None}
    return model, body.base64_file(image, 0), given


def _confidence(given: object) -> float:
    if given is None:
        return 0.0
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        raise BadOption("conf_threshold: 0 to 1: regions with a lower score are left out")
    return float(given)


def _shapes(result: SegmentationResult, least: float, until: Deadline) -> bytes:
    """The answer."""
    labels, names, drawn = result.labels, result.style.names, result.drawn
    if drawn is not None:
        labels = np.where(np.isin(labels, list(drawn)), labels, np.uint8(NO_DATA))
    found = largest_regions(labels, result.margin, min_area=result.options.min_area, most=MOST_SHAPES)
    told = [*result.warnings, *([found.told] if found.told else [])]
    shapes = []
    for region in found.regions:
        until.check()
        if round(region.score, 4) < least:
            continue
        shapes.append(
            {
                "label": names[region.id],
                "shape_type": "polygon",
                "points": bridged(region.rings),
                "score": round(region.score, 4),
            }
        )
    answer = {"success": True, "data": {"shapes": shapes, "description": "; ".join(told), "replace": True}}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
