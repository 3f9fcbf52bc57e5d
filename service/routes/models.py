"""GET /models, the probes, and the metrics: what this server holds and how it is.

Knows nothing of images, and waits for nothing: a probe never stands behind a queue.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from service import openapi, schemas
from service.errors import Busy
from service.registry import Served
from service.rooms import rooms_of, served_of

router = APIRouter()


@router.get("/models", operation_id="models", response_model=schemas.ModelList, responses=openapi.responses(503))
async def models(request: Request) -> schemas.ModelList:
    return schemas.ModelList(models=_all(request))


@router.get(
    "/models/{name}",
    operation_id="model",
    response_model=schemas.ModelDetail,
    responses=openapi.responses(404, 422, 503),
)
async def model(name: str, request: Request) -> schemas.ModelDetail:
    registry = rooms_of(request).registry
    if name in registry.failed:
        return schemas.ModelDetail(**dict(_failed(name, registry.failed[name])))
    served = served_of(request, name)
    return schemas.ModelDetail(
        **dict(_info(request, served)),
        warm_shapes=served.shapes,
        manifest=served.bundle.manifest.model_dump(mode="json"),
    )


@router.get("/livez", operation_id="livez", responses=openapi.responses())
async def livez() -> dict[str, bool]:
    return {"live": True}


@router.get("/readyz", operation_id="readyz", responses=openapi.responses(503))
async def readyz(request: Request) -> Response:
    if reason := _not_ready(request):
        raise Busy(reason, reason="not_ready")
    return JSONResponse({"ready": True})


@router.get("/healthz", operation_id="healthz", response_model=schemas.Health, responses=openapi.responses())
async def healthz(request: Request) -> schemas.Health:
    rooms = rooms_of(request)
    served = rooms.registry.served
    reason = _not_ready(request)
    return schemas.Health(
        ready=reason is None,
        reason=reason,
        models=_all(request),
        waiting=sum(s.batcher.waiting for s in served),
        running=sum(s.batcher.running for s in served),
        inside=len(rooms.house.admission),
        names_kept=all(s.clusters.persistent for s in served),
    )


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse, responses=openapi.responses())
async def metrics(request: Request) -> Response:
    rooms = rooms_of(request)
    rooms.registry.show()
    return Response(rooms.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _not_ready(request: Request) -> str | None:
    rooms = rooms_of(request)
    if rooms.registry.state != "ready":
        return f"the server is {rooms.registry.state}"
    return "the queue has been nearly full for a while" if rooms.house.admission.flooded() else None


def _info(request: Request, served: Served) -> schemas.ModelInfo:
    return schemas.ModelInfo(
        name=served.name,
        digest=served.bundle.digest[:12],
        state="ready",
        default=rooms_of(request).registry.served[0] is served,
        method=served.bundle.manifest.method,
        k=served.clusters.count,
        provider=served.provider,
    )


def _failed(name: str, reason: str) -> schemas.ModelInfo:
    return schemas.ModelInfo(name=name, digest=None, state="failed", default=False, reason=reason)


def _all(request: Request) -> list[schemas.ModelInfo]:
    registry = rooms_of(request).registry
    ready = [_info(request, served) for served in registry.served]
    return ready + [_failed(name, reason) for name, reason in registry.failed.items()]
