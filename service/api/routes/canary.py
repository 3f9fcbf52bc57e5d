"""/models/canary: a new bundle that answers a share of who names no model, how it agrees with the default, and its end.

Knows nothing of images, of other servers: `canary_fleet.py` has what is done and counted on all of them.
"""

import asyncio
import logging

from fastapi import APIRouter, Request

from service.api import canary_fleet, canary_views, openapi
from service.api.dependencies import allowed_caller, known_caller, state_of
from service.api.model_views import followed_of, model_info
from service.api.request import read_json
from service.errors import BadOption, quoted

log = logging.getLogger("tessera")

router = APIRouter(tags=["models"])
_CHANGES = (401, 403, 404, 409, 422, 503)
_BODY = (400, 408, 413, 415)


@router.get(
    "/models/canary",
    operation_id="canary",
    summary="How often the canary answered, and how far it agrees with the default",
    response_model=canary_views.CanaryReport,
    responses=openapi.responses(401),
)
async def canary(request: Request) -> canary_views.CanaryReport:
    known_caller(request)
    state = state_of(request)
    found = await canary_fleet.counted(state)
    return await asyncio.to_thread(canary_views.report, state.canary, state.registry, found, state.comparisons.waiting)


@router.post(
    "/models/{name}/canary",
    operation_id="startCanary",
    summary="Have the bundle in a folder under TESSERA_MODELS answer a share of who names no model",
    response_model=canary_views.CanaryStarted,
    responses=openapi.responses(*_CHANGES, *_BODY),
    openapi_extra=openapi.json_body(canary_views.CanaryOptions, required=False),
)
async def start(name: str, request: Request) -> canary_views.CanaryStarted:
    caller, state = _admin(request), state_of(request)
    options = await read_json(request, canary_views.CanaryOptions, hint='send none, or {"share": 5}', empty=b"{}")
    share = state.settings.canary_share if options.share is None else options.share
    elsewhere = await canary_fleet.start(state, name, share)
    ref = request.state.model = state.canary.ref or ""
    log.info("%s has %s answer %g %%, request %s", caller, ref, share, request.state.request_id)
    return canary_views.CanaryStarted(canary=ref, share=share, elsewhere=elsewhere)


@router.patch(
    "/models/canary",
    operation_id="changeCanary",
    summary="Have the canary answer another share",
    response_model=canary_views.CanaryStarted,
    responses=openapi.responses(*_CHANGES, *_BODY),
    openapi_extra=openapi.json_body(canary_views.CanaryChange, required=True),
)
async def change(request: Request) -> canary_views.CanaryStarted:
    caller, state = _admin(request), state_of(request)
    share = (await read_json(request, canary_views.CanaryChange, hint='send for instance {"share": 20}')).share
    elsewhere = await canary_fleet.set_share(state, share)
    ref = request.state.model = state.canary.ref or ""
    log.info("%s has %s answer %g %%, request %s", caller, ref, share, request.state.request_id)
    return canary_views.CanaryStarted(canary=ref, share=share, elsewhere=elsewhere)


@router.post(
    "/models/canary/promote",
    operation_id="promoteCanary",
    summary="Make the canary the default",
    response_model=canary_views.Promoted,
    responses=openapi.responses(*_CHANGES),
)
async def promote(request: Request) -> canary_views.Promoted:
    caller, state = _admin(request), state_of(request)
    added, elsewhere = await canary_fleet.promote(state)
    served = added.served
    request.state.model = served.bundle.ref
    note = (
        f"the next start serves what TESSERA_BUNDLES says: name {quoted(str(served.bundle.path), 300)} first there, and"
        " take TESSERA_CANARY away"
    )
    log.info("%s promoted %s, request %s; %s", caller, served.bundle.ref, request.state.request_id, note)
    return canary_views.Promoted(
        model=model_info(request, served),
        unchanged=added.unchanged,
        replaced=added.replaced,
        followed=added.followed and followed_of(added.followed),
        note=note,
        elsewhere=elsewhere,
    )


@router.post(
    "/models/canary/drop",
    operation_id="dropCanary",
    summary="Let the canary go: the default answers all",
    response_model=canary_views.DroppedCanary,
    responses=openapi.responses(*_CHANGES),
)
async def drop(request: Request) -> canary_views.DroppedCanary:
    caller, state = _admin(request), state_of(request)
    default = state.registry.get(None).bundle.ref
    ref, elsewhere = await canary_fleet.drop(state, f"by a call of {caller}")
    log.info("%s dropped %s, request %s", caller, ref, request.state.request_id)
    return canary_views.DroppedCanary(
        dropped=ref,
        default=default,
        note="the next start has it again where TESSERA_CANARY names it",
        elsewhere=elsewhere,
    )


def _admin(request: Request) -> str:
    caller = allowed_caller(request, "admin")
    if request.query_params:
        raise BadOption(
            f'{quoted(min(request.query_params))}: there are no options here but in the body: {{"share": 5}}'
        )
    return caller
