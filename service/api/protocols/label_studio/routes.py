"""The routes of Label Studio's ML backend. Its limits: 1 s for /health, 3 s for /setup, 100 s for /predict.

Knows nothing of pixels.
"""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from models.errors import TesseraError
from service.api import openapi
from service.api.dependencies import allowed_caller, served_of, state_of
from service.api.protocols.label_studio import labeling_config, requests
from service.api.protocols.label_studio.predicting import predict_each
from service.api.protocols.label_studio.predictions import Labeled
from service.api.protocols.label_studio.task_images import TaskImages
from service.api.protocols.raw_body import raw_body
from service.api.request import begun
from service.errors import printable

_REASON = 200  # characters of it, where Label Studio shows a model's version
_REFUSALS = openapi.responses(400, 401, 404, 408, 413, 415, 422, 503, 504, refusal=openapi.LONE)

router = APIRouter(tags=["label studio"])


@router.get(
    "/health", operation_id="labelStudioHealth", summary="Whether the backend is up", responses=openapi.responses()
)
async def health() -> dict[str, str]:
    return {"status": "UP", "model_class": "Tessera"}


@router.post(
    "/setup",
    operation_id="labelStudioSetup",
    summary="Connect a project",
    responses=_REFUSALS,
    openapi_extra=openapi.json_body(requests.SetupBody, required=False),
)
async def setup(request: Request) -> dict[str, str]:
    caller = allowed_caller(request, "infer")
    async with raw_body(request, caller) as raw:
        asked = await raw.parse(requests.document_of)
    return {"model_version": served_of(request, requests.model_of(asked)).bundle.ref}


@router.post(
    "/validate",
    operation_id="labelStudioValidate",
    summary="Whether a labeling configuration can be answered",
    responses=_REFUSALS,
    openapi_extra=openapi.json_body(requests.ValidateBody, required=True),
)
async def validate(request: Request) -> dict[str, str]:
    async with raw_body(request, allowed_caller(request, "infer")) as raw:
        labeling_config.parse(requests.text_at(await raw.parse(requests.document_of), "config"))
    return {"status": "ok"}


@router.get(
    "/versions", operation_id="labelStudioVersions", summary="The models that can be asked", responses=_REFUSALS
)
async def versions(request: Request) -> dict[str, list[str]]:
    async with raw_body(request, allowed_caller(request, "infer")):
        return {"versions": [served.bundle.ref for served in state_of(request).registry.named]}


@router.post(
    "/webhook",
    operation_id="labelStudioWebhook",
    summary="Take note of an event; nothing is trained",
    status_code=201,
    responses={status: answer for status, answer in _REFUSALS.items() if status != 200},
)
async def webhook(request: Request) -> dict[str, str]:
    async with raw_body(request, allowed_caller(request, "infer")) as raw:
        await raw.parse(requests.document_of)
    return {"status": "ok", "detail": "nothing is trained here: `tessera train` makes a model"}


@router.post(
    "/predict",
    operation_id="labelStudioPredict",
    summary="Predictions for tasks",
    response_model=requests.Predictions,
    responses=_REFUSALS,
    openapi_extra=openapi.json_body(requests.PredictBody, required=True),
)
async def predict(request: Request) -> Response:
    state = state_of(request)
    caller = allowed_caller(request, "infer")
    source = TaskImages.from_settings(state.settings)
    async with raw_body(request, caller) as raw:
        asked = await raw.parse(requests.read)
        options = requests.chosen_by(asked.config.controls)
        async with begun(request, options, (), caller, many=True) as work, source.open() as images:
            answers = await predict_each(work, asked, images)
            ref = work.served.bundle.ref
    results = [_failed(ref, one) if isinstance(one, TesseraError) else _prediction(ref, one) for one in answers]
    return Response(orjson.dumps({"results": results, "model_version": ref}), media_type="application/json")


def _prediction(ref: str, labeled: Labeled) -> dict[str, Any]:
    score = labeled.sure / labeled.pixels if labeled.pixels else 0.0
    return {
        "result": [orjson.Fragment(one) for one in labeled.regions],
        "score": round(min(max(score, 0.0), 1.0), 4),
        "model_version": ref,
        **({"warnings": labeled.warnings} if labeled.warnings else {}),
    }


def _failed(ref: str, error: TesseraError) -> dict[str, Any]:
    """An empty prediction of another version than the model's: it says why, and the task is asked for again."""
    reason = printable(str(error))
    version = f"{ref} failed: {reason}"[:_REASON]
    return {"result": [], "score": 0.0, "model_version": version, "error": reason}
