"""GET /models, and loading and unloading them.

Knows nothing of images. A probe waits for nothing: it never stands behind a queue, or behind a load.
"""

from fastapi import APIRouter, Request

from service.api import loading, openapi, responses
from service.api.dependencies import allowed_caller, known_caller, served_of, state_of
from service.api.model_views import absent_models, all_models, followed_of, model_info
from service.api.request import read_json
from service.errors import BadOption, quoted

router = APIRouter(tags=["models"])


@router.get(
    "/models",
    operation_id="models",
    summary="All models, and the state of each",
    response_model=responses.ModelList,
    responses=openapi.responses(401, 503),
)
async def models(request: Request) -> responses.ModelList:
    known_caller(request)
    return responses.ModelList(models=all_models(request))


@router.get(
    "/models/{name}",
    operation_id="model",
    summary="One model: its manifest, its engine, how far its answers drift",
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
        unfamiliar=served.unfamiliar.share(),
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
    caller = allowed_caller(request, "admin")
    if request.query_params:
        raise BadOption(f'{quoted(min(request.query_params))}: options of a load go into its body: {{"default": true}}')
    options = await read_json(request, responses.LoadOptions, hint='send none, or {"default": true}', empty=b"{}")
    added = await loading.load(request, caller, name, default=options.default)
    return responses.Loaded(
        model=model_info(request, added.served),
        unchanged=added.unchanged,
        replaced=added.replaced,
        followed=added.followed and followed_of(added.followed),
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
    served = await loading.unload(request, caller, name)
    default = state.registry.get(None)
    return responses.UnloadedModel(unloaded=served.bundle.ref, finishing=served.users, default=default.bundle.ref)
