"""GET /models, and loading and unloading them.

Knows nothing of images. A probe waits for nothing: it never stands behind a queue, or behind a load.
"""

import asyncio
import logging
import re
from pathlib import Path

from fastapi import APIRouter, Request

from service.api import openapi, responses
from service.api.dependencies import allowed_caller, known_caller, served_of, state_of
from service.api.model_views import absent_models, all_models, model_info
from service.api.request import read_json
from service.errors import BadOption, NotAllowed, NotFound, nearest, quoted
from service.repository.cluster_names import TransferReport

log = logging.getLogger("tessera")

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

router = APIRouter(tags=["models"])


@router.get("/models", operation_id="models", response_model=responses.ModelList, responses=openapi.responses(401, 503))
async def models(request: Request) -> responses.ModelList:
    known_caller(request)
    return responses.ModelList(models=all_models(request))


@router.get(
    "/models/{name}",
    operation_id="model",
    response_model=responses.ModelDetail,
    responses=openapi.responses(401, 404, 422, 503),
)
async def model(name: str, request: Request) -> responses.ModelDetail:
    known_caller(request)
    registry = state_of(request).registry
    if not any(name in (served.name, served.bundle.ref) for served in registry.served):
        for absent in absent_models(request):
            if name == absent.name:
                return responses.ModelDetail(**dict(absent))
    served = served_of(request, name)
    return responses.ModelDetail(
        **dict(model_info(request, served)),
        warm_shapes=list(served.engine.shapes),
        drift=served.drift.distance(),
        manifest=served.bundle.manifest.model_dump(mode="json"),
    )


@router.post(
    "/models/{name}/load",
    operation_id="loadModel",
    summary="Serve the bundle in a folder under TESSERA_MODELS, in place of the one of its name",
    response_model=responses.Loaded,
    responses=openapi.responses(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(responses.LoadOptions, required=False),
)
async def load(name: str, request: Request) -> responses.Loaded:
    state = state_of(request)
    caller = allowed_caller(request, "admin")
    if request.query_params:
        raise BadOption(f'{quoted(min(request.query_params))}: options of a load go into its body: {{"default": true}}')
    options = await read_json(request, responses.LoadOptions, hint='send none, or {"default": true}', empty=b"{}")
    folder = await asyncio.to_thread(_folder, state.settings.models, name)
    added = await state.registry.add(folder, default=options.default)
    request.state.model = added.served.bundle.ref
    log.info("%s loaded %s, request %s", caller, added.served.bundle.ref, request.state.request_id)
    return responses.Loaded(
        model=model_info(request, added.served),
        unchanged=added.unchanged,
        replaced=added.replaced,
        followed=added.followed and _followed(added.followed),
    )


@router.post(
    "/models/{name}/unload",
    operation_id="unloadModel",
    summary="Put a model away once it has answered what it was asked",
    response_model=responses.UnloadedModel,
    responses=openapi.responses(401, 403, 404, 409, 422, 503),
)
async def unload(name: str, request: Request) -> responses.UnloadedModel:
    state = state_of(request)
    caller = allowed_caller(request, "admin")
    served = await state.registry.remove(name)
    log.info("%s unloaded %s, request %s", caller, served.bundle.ref, request.state.request_id)
    default = state.registry.get(None)
    return responses.UnloadedModel(unloaded=served.bundle.ref, finishing=served.users, default=default.bundle.ref)


def _folder(models: Path | None, name: str) -> Path:
    """The bundle's folder, in `models` and nowhere else. Raises NotAllowed, BadOption, NotFound."""
    if models is None:
        raise NotAllowed(
            "models are not loaded over HTTP here; set TESSERA_MODELS to the folder that holds the bundles"
        )
    if not _FOLDER.fullmatch(name):
        raise BadOption(
            f"{quoted(name)} is no folder's name: letters, digits, dots, dashes, underscores, a letter or digit first"
        )
    try:
        home = models.resolve(strict=True)
        folder = (home / name).resolve()
        if folder.parent == home and folder.is_dir():
            return folder
        if folder.is_dir():
            raise NotFound(f"{quoted(name)} leads out of the folder in TESSERA_MODELS; copy the bundle into it")
        there = sorted(file.parent.name for file in home.glob("*/manifest.json"))[:20]
    except OSError as error:
        raise NotFound(f"the folder in TESSERA_MODELS cannot be read: {error.strerror}; set it right") from None
    hint = nearest(name, there) or f"; there is {', '.join(there) or 'nothing yet'}"
    raise NotFound(f"no bundle folder {name!r} in TESSERA_MODELS{hint}")


def _followed(followed: TransferReport) -> responses.Followed:
    return responses.Followed(
        by=followed.by,
        carried=[responses.FollowedCluster(**pair._asdict()) for pair in followed.carried],
        lost=[responses.LostCluster(**lost._asdict()) for lost in followed.lost],
    )
