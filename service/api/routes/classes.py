"""/classes: a person's own classes, taught by showing places; kept, exported, asked where to show the next one.

Knows nothing of pixels; classes live in `service/repository/classes.py`, images go their way in `pipeline.py`. Of an
image that is shown nothing is kept but the mean code of the place.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from models.class_file import MAX_BYTES, ClassFile, ClassFileError
from service.api import body, class_views, conditional, openapi
from service.api.dependencies import allowed_caller, known_caller, served_of, state_of
from service.api.request import read_json, read_request
from service.errors import BadOption, BodyTooLarge
from service.inference import pipeline
from service.inference.options import ExampleOptions, ModelQuery, SuggestOptions
from service.inference.results import NetworkOutput
from service.inference.taught import as_classes, decided, suggestions
from service.repository.classes import ClassBody, ClassState
from service.repository.served_model import Served

log = logging.getLogger("tessera")

router = APIRouter(tags=["classes"])
_LOOK = (401, 404, 422, 503)
_CHANGE = (400, *_LOOK, 408, 409, 412, 413, 415, 507)
_IMAGE = (*_CHANGE, 429, 504)
_IMAGES_AT_ONCE = 16  # of a caller's latest, that are looked at for places
_CREATED = {
    "Location": {"schema": {"type": "string"}, "description": "where the class is"},
    **conditional.RESPONSE_HEADERS,
}
_MASK = {"mask": "a PNG of the image's size, whose pixels are not 0 at the place that is meant"}
_READ: dict[str, Any] = {
    "responses": openapi.responses(304, *_LOOK, 412, headers=conditional.RESPONSE_HEADERS),
    "openapi_extra": conditional.parameters("If-None-Match", "If-Match"),
}


@router.get("/classes", operation_id="classes", response_model=class_views.ClassList, **_READ)
async def classes(request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    served = served_of(request, query.model)
    return conditional.tagged(request, class_views.class_list(served, await served.classes.refresh()))


@router.get(
    "/classes/export",
    operation_id="exportClasses",
    summary="All classes with their examples as one file, for other servers and for tessera evaluate",
    response_model=ClassFile,
    responses=openapi.responses(*_LOOK),
)
async def export(request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    served = served_of(request, query.model)
    state = await served.classes.refresh()
    content = await asyncio.to_thread(lambda: state.file().to_bytes())
    headers = {"content-disposition": 'attachment; filename="classes.json"', "cache-control": "no-cache"}
    return Response(content, media_type="application/json", headers=headers)


@router.get(
    "/classes/suggest",
    operation_id="suggestPlaces",
    summary="Where to click next, in the images that this caller was answered for lately",
    response_model=class_views.SuggestedPlaces,
    response_model_exclude_none=True,
    responses=openapi.responses(*_LOOK),
)
async def suggest_lately(
    request: Request, query: Annotated[class_views.SuggestQuery, Query()]
) -> class_views.SuggestedPlaces:
    caller, served = known_caller(request), served_of(request, query.model)
    state, runtime = await served.classes.refresh(), state_of(request).runtime
    kept: list[tuple[bytes, NetworkOutput]] = []
    for key in runtime.lately.of(caller):
        digest = key[0]
        output = runtime.network_outputs.peek(key) if served.bundle.digest in key else None
        if isinstance(digest, bytes) and output is not None and output.code is not None:
            kept.append((digest, output))
    if not state.taught:
        return class_views.SuggestedPlaces(places=[], note="nothing is taught yet: show a class its first place")
    if not kept:
        note = "none of your images is remembered here: segment one, or send it with POST /classes/suggest"
        return class_views.SuggestedPlaces(places=[], note=note)

    def look() -> list[class_views.SuggestedPlace]:
        found = []
        for digest, output in kept[:_IMAGES_AT_ONCE]:
            shown = as_classes(output, state)
            places = suggestions(shown, decided(served.bundle.manifest, shown), query.count)
            found += class_views.suggested(digest, places)
        return sorted(found, key=lambda place: place.margin)[: query.count]

    done = await runtime.workers.submit(look, key=caller)
    return class_views.SuggestedPlaces(places=done.answer)


@router.post(
    "/classes/suggest",
    operation_id="suggestPlacesIn",
    summary="Where to click next in an image",
    response_model=class_views.SuggestedPlaces,
    response_model_exclude_none=True,
    responses=openapi.responses(*_IMAGE),
    openapi_extra=openapi.images(SuggestOptions, form="SuggestForm"),
)
async def suggest(request: Request) -> class_views.SuggestedPlaces:
    async with read_request(request, SuggestOptions) as asked:
        if asked.many:
            raise BadOption("several images: places are suggested in one; send one")
        task = asked.task(asked.images[0])
        places = await pipeline.suggest(task)
        found = class_views.suggested(await task.hashed(), places)
    return class_views.SuggestedPlaces(places=found)


@router.post(
    "/classes",
    operation_id="makeClass",
    summary="Make a class; answers with classes=true show it once it has an example or a cluster",
    status_code=201,
    response_model=class_views.ClassDetail,
    responses=openapi.created(*_CHANGE, headers=_CREATED),
    openapi_extra=openapi.json_body(ClassBody, required=True) | conditional.parameters("If-Match"),
)
async def make(request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    caller = allowed_caller(request, "edit")
    wanted = await read_json(request, ClassBody, hint='send for instance {"name": "road"}')
    served = served_of(request, query.model)
    made = await served.classes.create(wanted, _unchanged_list(request, served))
    _told(request, caller, f"made class {made.id} {made.name!r}")
    root = request.scope.get("root_path", "")
    headers = {"location": f"{root}/classes/{made.id}{_which(request, served)}"}
    return conditional.changed(class_views.class_detail(served.classes.state, made), 201, headers)


@router.put(
    "/classes/import",
    operation_id="importClasses",
    summary="Take over the classes of an exported file",
    response_model=class_views.ImportedClasses,
    responses=openapi.responses(*_CHANGE),
    openapi_extra=openapi.json_body(ClassFile, required=True) | conditional.parameters("If-Match"),
)
async def import_classes(request: Request, query: Annotated[class_views.ImportQuery, Query()]) -> Response:
    caller, state = allowed_caller(request, "edit"), state_of(request)
    with state.runtime.admission.hold() as hold:
        data = await body.read(
            request,
            hold,
            max_bytes=min(MAX_BYTES, state.settings.max_body_bytes),
            timeout_s=state.settings.body_timeout_s,
            too_large=lambda most: BodyTooLarge(f"the file has more than the {most // 2**20} MiB that are read here"),
        )
        file = (await state.runtime.large.submit(lambda: _file_of(data), key=caller)).answer
        served = served_of(request, query.model)
        unchanged = _unchanged_list(request, served)
        done = await served.classes.load(file, replace=query.replace, precondition=unchanged)
    count = sum(len(numbers) for numbers in done.classes.values())
    how = ", in place of all others" if query.replace else ""
    _told(request, caller, f"imported {len(done.classes)} classes with {count} new examples{how}")
    return JSONResponse(class_views.imported(served, served.classes.state, done).model_dump())


@router.get("/classes/{id:id}", operation_id="class", response_model=class_views.ClassDetail, **_READ)
async def get_class(id: int, request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    served = served_of(request, query.model)
    state = await served.classes.refresh()
    return conditional.tagged(request, class_views.class_detail(state, state.find(id)))


@router.put(
    "/classes/{id:id}",
    operation_id="putClass",
    summary="Make or replace a class's name, color and clusters; its examples stay",
    response_model=class_views.ClassDetail,
    responses=openapi.responses(*_CHANGE, headers=conditional.RESPONSE_HEADERS),
    openapi_extra=openapi.json_body(ClassBody, required=True) | conditional.parameters("If-Match", "If-None-Match"),
)
async def put_class(id: int, request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    caller = allowed_caller(request, "edit")
    wanted = await read_json(request, ClassBody, hint='send for instance {"name": "road", "color": "#804080"}')
    served = served_of(request, query.model)
    put = await served.classes.put(id, wanted, _unchanged(request, id))
    _told(request, caller, f"put class {id}: {put.name!r}, {put.color}, clusters {[*put.clusters]}")
    return conditional.changed(class_views.class_detail(served.classes.state, put))


@router.delete(
    "/classes/{id:id}",
    operation_id="deleteClass",
    summary="Take a class away; the answer is a file that brings it back: PUT /classes/import",
    response_model=ClassFile,
    responses=openapi.responses(*_CHANGE),
    openapi_extra=conditional.parameters("If-Match"),
)
async def delete_class(id: int, request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    caller, served = allowed_caller(request, "edit"), served_of(request, query.model)
    removed = await served.classes.remove(id, _unchanged(request, id))
    _told(request, caller, f"deleted class {id} {removed.classes[0].name!r}")
    return Response(await asyncio.to_thread(removed.to_bytes), media_type="application/json")


@router.post(
    "/classes/{id:id}/examples",
    operation_id="teachClass",
    summary="Show a class a place in an image: what is there is it, or with negative=true is not",
    status_code=201,
    response_model=class_views.Taught,
    responses=openapi.created(*_IMAGE, headers={"Location": _CREATED["Location"]}),
    openapi_extra=openapi.joined(
        openapi.images(ExampleOptions, form="ExampleForm", files=_MASK), conditional.parameters("If-Match")
    ),
)
async def teach(id: int, request: Request) -> Response:
    async with read_request(request, ExampleOptions, mask=True, scope="edit") as asked:
        chosen, served = asked.options, asked.served
        if asked.many:
            raise BadOption("several images: a place belongs to one; send one")
        chosen.check_place(mask=asked.mask is not None)
        (await served.classes.refresh()).find(id)
        place = await pipeline.point(asked.task(asked.images[0]), id, asked.mask)
        n = await served.classes.teach(
            id,
            place.code,
            place.at,
            encoder=served.classes.state.encoder,
            negative=chosen.negative,
            precondition=_unchanged(request, id),
        )
        state = served.classes.state
        name = state.by_id[id].name if id in state.by_id else ""
        request.state.model = served.bundle.ref
        what = "is not it" if chosen.negative else "is it"
        _told(request, asked.caller, f"showed class {id} {name!r} its example {n}: {what}, agrees {place.agrees:g}")
    root = request.scope.get("root_path", "")
    headers = {"location": f"{root}/classes/{id}{_which(request, served)}"}
    answer = class_views.taught(served, state, id, n, place.agrees)
    return JSONResponse(answer.model_dump(by_alias=True), 201, headers)


@router.delete(
    "/classes/{id:id}/examples/{n:id}",
    operation_id="deleteExample",
    summary="Take an example away; the answer is a file that brings it back: PUT /classes/import",
    response_model=ClassFile,
    responses=openapi.responses(*_CHANGE),
    openapi_extra=conditional.parameters("If-Match"),
)
async def delete_example(id: int, n: int, request: Request, query: Annotated[ModelQuery, Query()]) -> Response:
    caller, served = allowed_caller(request, "edit"), served_of(request, query.model)
    removed = await served.classes.forget(id, n, _unchanged(request, id))
    _told(request, caller, f"took example {n} away from class {id} {removed.classes[0].name!r}")
    return Response(removed.to_bytes(), media_type="application/json")


def _file_of(data: bytes) -> ClassFile:
    try:
        return ClassFile.parse(data)
    except ClassFileError as error:
        raise BadOption(f"{error}; send what GET /classes/export gave") from None


def _unchanged(request: Request, id: int) -> Callable[[ClassState], None]:
    def check(state: ClassState) -> None:
        one = state.by_id.get(id)
        conditional.check_unchanged(request.headers, None if one is None else class_views.class_detail(state, one))

    return check


def _unchanged_list(request: Request, served: Served) -> Callable[[ClassState], None]:
    return lambda state: conditional.check_unchanged(request.headers, class_views.class_list(served, state))


def _which(request: Request, served: Served) -> str:
    default = state_of(request).registry.served[0]
    return "" if served is default else f"?model={served.bundle.ref}"


def _told(request: Request, caller: str, what: str) -> None:
    """One line: who changed what, names quoted; and other servers show it at once."""
    who = caller or "somebody without a key"
    log.info("%s %s of %s, request %s", who, what, request.state.model, request.state.request_id)
    state_of(request).tell_names()
