"""GET /models, loading and unloading, the probes, and the metrics: what this server holds and how it is.

Knows nothing of images. A probe waits for nothing: it never stands behind a queue, or behind a load.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import ValidationError

from models import host
from service import body, openapi, schemas
from service.clusters import Followed
from service.errors import BadBody, BadOption, Busy, NotAllowed, NotFound, explain, nearest
from service.registry import Served
from service.rooms import known_caller, rooms_of, served_of

_LOAD_BYTES = 2**16
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {"application/json": {"schema": schemas.LoadOptions.model_json_schema()}},
    }
}

router = APIRouter()


@router.get("/models", operation_id="models", response_model=schemas.ModelList, responses=openapi.responses(401, 503))
async def models(request: Request) -> schemas.ModelList:
    known_caller(request)
    return schemas.ModelList(models=_all(request))


@router.get(
    "/models/{name}",
    operation_id="model",
    response_model=schemas.ModelDetail,
    responses=openapi.responses(401, 404, 422, 503),
)
async def model(name: str, request: Request) -> schemas.ModelDetail:
    known_caller(request)
    registry = rooms_of(request).registry
    if not any(name in (served.name, served.bundle.ref) for served in registry.served):
        for absent in _absent(request):
            if name == absent.name:
                return schemas.ModelDetail(**dict(absent))
    served = served_of(request, name)
    return schemas.ModelDetail(
        **dict(_info(request, served)),
        warm_shapes=served.shapes,
        drift=served.drift.distance(),
        manifest=served.bundle.manifest.model_dump(mode="json"),
    )


@router.post(
    "/models/{name}/load",
    operation_id="loadModel",
    summary="Serve the bundle in a folder under TESSERA_MODELS, in place of the one of its name",
    response_model=schemas.Loaded,
    responses=openapi.responses(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=_LOAD_BODY,
)
async def load(name: str, request: Request) -> schemas.Loaded:
    rooms = rooms_of(request)
    rooms.registry.admit()
    rooms.keys.admin(request.headers)
    if request.query_params:
        raise BadOption(f'{min(request.query_params)[:60]}: options of a load go into its body: {{"default": true}}')
    options = await _load_options(request)
    folder = await asyncio.to_thread(_folder, rooms.settings.models, name)
    added = await rooms.registry.add(folder, default=options.default)
    request.state.model = added.served.bundle.ref
    return schemas.Loaded(
        model=_info(request, added.served),
        unchanged=added.unchanged,
        replaced=added.replaced,
        followed=added.followed and _followed(added.followed),
    )


@router.post(
    "/models/{name}/unload",
    operation_id="unloadModel",
    summary="Put a model away once it has answered what it was asked",
    response_model=schemas.Unloaded,
    responses=openapi.responses(401, 403, 404, 409, 422, 503),
)
async def unload(name: str, request: Request) -> schemas.Unloaded:
    rooms = rooms_of(request)
    rooms.keys.admin(request.headers)
    served = await rooms.registry.remove(name)
    default = rooms.registry.get(None)
    return schemas.Unloaded(unloaded=served.bundle.ref, finishing=served.users, default=default.bundle.ref)


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
        compiled=host.compiled(),
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


async def _load_options(request: Request) -> schemas.LoadOptions:
    rooms = rooms_of(request)
    with rooms.house.admission.hold() as hold:
        data = await body.read(request, hold, max_bytes=_LOAD_BYTES, timeout_s=rooms.settings.body_timeout_s)
    try:
        return schemas.LoadOptions.model_validate_json(data.strip() or b"{}")
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise BadBody('the body is not JSON; send none, or {"default": true}') from None
        known = {name: field.description or "" for name, field in schemas.LoadOptions.model_fields.items()}
        raise BadOption(explain(error.errors(), known)) from None


def _folder(models: Path | None, name: str) -> Path:
    """The bundle's folder, in `models` and nowhere else. Raises NotAllowed, BadOption, NotFound."""
    if models is None:
        raise NotAllowed(
            "models are not loaded over HTTP here; set TESSERA_MODELS to the folder that holds the bundles"
        )
    if not _FOLDER.fullmatch(name):
        raise BadOption(
            f"{name[:60]!r} is no folder's name: letters, digits, dots, dashes and underscores, a letter or digit first"
        )
    try:
        home = models.resolve(strict=True)
        folder = (home / name).resolve()
        if folder.parent == home and folder.is_dir():
            return folder
        there = sorted(file.parent.name for file in home.glob("*/manifest.json"))[:20]
    except OSError as error:
        raise NotFound(f"the folder in TESSERA_MODELS cannot be read: {error.strerror}; set it right") from None
    hint = nearest(name, there) or f"; there is {', '.join(there) or 'nothing yet'}"
    raise NotFound(f"no bundle folder {name!r} in TESSERA_MODELS{hint}")


def _followed(followed: Followed) -> schemas.Followed:
    return schemas.Followed(
        by=followed.by,
        carried=[schemas.FollowedCluster(**pair._asdict()) for pair in followed.carried],
        lost=[schemas.LostCluster(**lost._asdict()) for lost in followed.lost],
    )


def _info(request: Request, served: Served) -> schemas.ModelInfo:
    registry = rooms_of(request).registry
    return schemas.ModelInfo(
        name=served.name,
        digest=served.bundle.digest[:12],
        state="leaving" if served in registry.leaving else "ready",
        default=served is next(iter(registry.served), None),
        method=served.bundle.manifest.method,
        k=served.clusters.count,
        engine=served.engine,
        provider=served.provider,
        note=served.note,
        memory_bytes=served.nbytes,
    )


def _absent(request: Request) -> list[schemas.ModelInfo]:
    """Folders that are not served: one being loaded, and those that failed."""
    registry = rooms_of(request).registry
    rows = [
        schemas.ModelInfo(name=name, digest=None, state="failed", default=False, reason=reason)
        for name, reason in registry.failed.items()
        if name != registry.loading
    ]
    if registry.loading is not None:
        rows.append(schemas.ModelInfo(name=registry.loading, digest=None, state="loading", default=False))
    return rows


def _all(request: Request) -> list[schemas.ModelInfo]:
    registry = rooms_of(request).registry
    return [_info(request, served) for served in registry.served + registry.leaving] + _absent(request)
