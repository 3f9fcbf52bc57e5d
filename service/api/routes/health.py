"""GET /livez, /readyz, /healthz and /metrics.

A probe waits for nothing: it never stands behind a queue, or behind a load.
"""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from models.native import bindings
from service.api import openapi, responses
from service.api.dependencies import state_of
from service.api.model_views import all_models
from service.errors import Busy

router = APIRouter(tags=["probes"])


@router.get(
    "/livez",
    operation_id="livez",
    summary="The process answers",
    response_model=responses.Liveness,
    responses=openapi.responses(),
)
async def livez() -> Response:
    return JSONResponse({"live": True})


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="A model is ready, and there is room for more",
    response_model=responses.Readiness,
    responses=openapi.responses(503),
)
async def readyz(request: Request) -> Response:
    if reason := state_of(request).not_ready():
        raise Busy(reason, reason="not_ready")
    return JSONResponse({"ready": True})


@router.get(
    "/healthz",
    operation_id="healthz",
    summary="Both, and what is inside",
    response_model=responses.Health,
    responses=openapi.responses(),
)
async def healthz(request: Request) -> responses.Health:
    state = state_of(request)
    served = state.registry.served
    reason = state.not_ready()
    return responses.Health(
        ready=reason is None,
        reason=reason,
        models=all_models(request),
        waiting=sum(s.batcher.waiting for s in served),
        running=sum(s.batcher.running for s in served),
        inside=len(state.runtime.admission),
        names_kept=state.registry.names_kept,
        compiled=bindings.compiled(),
    )


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Counts and times for Prometheus",
    response_class=PlainTextResponse,
    responses=openapi.responses(),
)
async def metrics(request: Request) -> Response:
    text = await request.app.state.scrape.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
