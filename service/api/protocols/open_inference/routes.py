"""Where the Open Inference Protocol is found: health, metadata, inference, statistics, the repository.

A probe waits for nothing. Knows nothing of pixels.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic_core import from_json

from models.errors import TesseraError
from models.io.samples import ImageError
from service.api import content_encoding, loading, openapi
from service.api.dependencies import allowed_caller, known_caller, served_of, state_of
from service.api.protocols.open_inference import documents
from service.api.protocols.open_inference.answer import Answer, Maps, TensorResponse, answer, folded
from service.api.protocols.open_inference.call import Call, read_call
from service.api.protocols.open_inference.tensors import CLUSTERS_PRESENT, CONFIDENCE
from service.api.protocols.parameters import options_of
from service.api.protocols.raw_body import RawBody, raw_body
from service.api.request import begun
from service.api.several import segment_each
from service.errors import BadBody, BadOption, BodyTooLarge, Busy, NotFound, quoted
from service.formats.registry import Renderer
from service.repository.served_model import Served

E = TypeVar("E", bound=Callable[[Request], Any])
_MODEL = "/v2/models/{model}"
_VERSIONS = ("", "/versions/{version}")
_ANSWER_BYTES = 8  # of an answer, for each byte that a request may have
_LENGTH = "Inference-Header-Content-Length"

router = APIRouter(tags=["open inference"])
_described = partial(openapi.responses, refusal=openapi.LONE)


def _of_model(
    method: str,
    tail: str,
    operation: str,
    *statuses: int,
    extra: dict[str, Any] | None = None,
    ok: dict[str, Any] | None = None,
    **how: Any,
) -> Callable[[E], E]:
    """Registers what is asked of a model, with and without a version in the path.

    extra, ok  what is said of the request, and of answers besides JSON
    """

    def register(endpoint: E) -> E:
        for version in _VERSIONS:
            names = ("model", "version") if version else ("model",)
            router.add_api_route(
                f"{_MODEL}{version}{tail}",
                endpoint,
                methods=[method],
                operation_id=f"{operation}Version" if version else operation,
                responses=_described(401, 404, 503, *statuses, ok=ok),
                openapi_extra=openapi.in_path(*names, also=extra),
                **how,
            )
        return endpoint

    return register


# Health


@router.get(
    "/v2/health/live",
    operation_id="oipLive",
    summary="The process answers",
    response_model=documents.OipLive,
    responses=_described(),
)
async def live() -> JSONResponse:
    return JSONResponse({"live": True})


@router.get(
    "/v2/health/ready",
    operation_id="oipReady",
    summary="A model is ready, and there is room for more",
    response_model=documents.OipReady,
    responses=_described(503),
)
async def ready(request: Request) -> JSONResponse:
    if reason := state_of(request).not_ready():
        raise Busy(reason, reason="not_ready")
    return JSONResponse({"ready": True, "live": True})


@_of_model("GET", "/ready", "oipModelReady", summary="Whether a model answers", response_model=documents.OipModelReady)
async def model_ready(request: Request) -> documents.OipModelReady:
    served = _served(request)
    if served.trouble:
        raise Busy(served.trouble, reason="not_ready")
    return documents.OipModelReady(name=served.name, ready=True)


# Metadata


@router.get(
    "/v2",
    operation_id="oipServer",
    summary="The server and the extensions it has",
    response_model=documents.OipServer,
    responses=_described(401),
)
async def server(request: Request) -> documents.OipServer:
    known_caller(request)
    return documents.server()


@router.get(
    "/v2/models/stats",
    operation_id="oipStatistics",
    summary="How often every model answered, and how long it took",
    response_model=documents.OipStatistics,
    responses=_described(401, 503),
)
async def all_statistics(request: Request) -> documents.OipStatistics:
    known_caller(request)
    return documents.statistics(state_of(request).registry.named)


@_of_model("GET", "", "oipModel", summary="A model's inputs and outputs", response_model=documents.OipModel)
async def model(request: Request) -> documents.OipModel:
    return documents.model(_served(request))


@_of_model("GET", "/config", "oipConfig", summary="A model's configuration", response_model=documents.OipConfig)
async def config(request: Request) -> documents.OipConfig:
    return documents.config(_served(request))


@_of_model(
    "GET",
    "/stats",
    "oipModelStatistics",
    summary="How often a model answered, and how long it took",
    response_model=documents.OipStatistics,
)
async def statistics(request: Request) -> documents.OipStatistics:
    return documents.statistics([_served(request)], _version(request))


# Inference


@_of_model(
    "POST",
    "/infer",
    "oipInfer",
    *(400, 408, 413, 415, 422, 504),
    response_model=documents.OipAnswer,
    summary="Label maps of images, as tensors",
    extra=openapi.tensors(_LENGTH),
    ok={openapi.BYTES: openapi.BINARY},
)
async def infer(request: Request) -> Response:
    caller = allowed_caller(request, "infer")
    settings, accept = state_of(request).settings, request.headers.get("accept-encoding", "")
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(raw_body(request, caller))
        length, version = request.headers.get(_LENGTH), _version(request)
        call = await raw.parse(lambda data: read_call(data, length, settings.max_images))
        options = options_of(call.parameters, model=_ref(request), priority=call.priority, timeout_ms=call.timeout_ms)
        async with begun(request, options, call.images, caller) as asked:
            found = await segment_each(
                asked, _renderer(call), _kept(raw, call, _ANSWER_BYTES * settings.max_body_bytes)
            )
            maps = _sound(found)
            about = documents.about(asked.served, version, call.id, [text for one in maps for text in one.warnings])
            pixels = sum(one.pixels for one in maps)
            whole, encoding = await raw.apart(pixels, lambda: _written(about, maps, call, accept))
        return TensorResponse(whole, encoding, stack.pop_all())


def _renderer(call: Call) -> Renderer[Maps]:
    wanted = [output.tensor for output in call.outputs]
    return Renderer(
        lambda result: Maps.of(result, wanted), margin="full" if CONFIDENCE in wanted else None, offset=True
    )


def _kept(raw: RawBody, call: Call, most: int) -> Callable[[Maps], None]:
    """Has what is kept of every image counted, as soon as there is any."""
    a_pixel = sum(4 for output in call.outputs if output.tensor is not CLUSTERS_PRESENT)
    size = 0

    def keep(maps: Maps) -> None:
        nonlocal size
        size += a_pixel * maps.pixels
        if size > most:
            raise BodyTooLarge(
                f"the answer has more than {most / 2**20:.0f} MiB ({_ANSWER_BYTES} times TESSERA_MAX_BODY_BYTES); send"
                " fewer or smaller images, or ask for fewer outputs"
            )
        raw.hold(maps.nbytes)

    return keep


def _sound(found: list[Maps | TesseraError]) -> list[Maps]:
    """The images' maps. Raises the first error among them: an answer is one tensor, or none."""
    maps: list[Maps] = []
    for i, one in enumerate(found):
        if isinstance(one, TesseraError):
            if isinstance(one, ImageError) and len(found) > 1:
                one.args = (f"image {i}: {one}",)
            raise one
        maps.append(one)
    return maps


def _written(about: dict[str, Any], maps: list[Maps], call: Call, accept: str) -> tuple[Answer, str]:
    whole = answer(about, maps, call.outputs)
    encoding = content_encoding.chosen(accept, whole.size)
    return folded(whole, encoding) if encoding else whole, encoding


INFER = [(f"{_MODEL}{version}/infer", infer) for version in _VERSIONS]


# The repository


@router.post(
    "/v2/repository/index",
    operation_id="oipIndex",
    summary="Which models there are",
    response_model=list[documents.OipIndexEntry],
    responses=_described(400, 401, 408, 413, 415, 503),
    openapi_extra=openapi.free_body({"ready": {"type": "boolean"}}),
)
async def index(request: Request) -> list[documents.OipIndexEntry]:
    known_caller(request)
    ready = (await _small(request)).get("ready", False)
    if not isinstance(ready, bool):
        raise BadBody("ready is true or false")
    return documents.index(state_of(request).registry, ready=ready)


@router.post(
    "/v2/repository/models/{model}/load",
    operation_id="oipLoad",
    summary="As POST /models/{name}/load",
    response_model=documents.OipDone,
    responses=_described(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=openapi.in_path(
        "model", also=openapi.free_body({"parameters": openapi.fields({"default": {"type": "boolean"}})})
    ),
)
async def load(request: Request) -> documents.OipDone:
    caller = allowed_caller(request, "admin")
    parameters = await _parameters(request)
    default = parameters.pop("default", False)
    if not isinstance(default, bool):
        raise BadOption("default is true or false: whether the model answers who names none")
    for name in parameters:
        raise BadOption(
            f"{quoted(name)}: a bundle is loaded as it stands in its folder; there is one parameter, default"
        )
    await loading.load(request, caller, request.path_params["model"], default=default)
    return documents.OipDone()


@router.post(
    "/v2/repository/models/{model}/unload",
    operation_id="oipUnload",
    summary="As POST /models/{name}/unload",
    response_model=documents.OipDone,
    responses=_described(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
    openapi_extra=openapi.in_path(
        "model", also=openapi.free_body({"parameters": openapi.fields({"unload_dependents": {"type": "boolean"}})})
    ),
)
async def unload(request: Request) -> documents.OipDone:
    caller = allowed_caller(request, "admin")
    for name in await _parameters(request):
        if name != "unload_dependents":  # no model depends on another
            raise BadOption(f"{quoted(name)} is not an option here; there is unload_dependents, which changes nothing")
    await loading.unload(request, caller, request.path_params["model"])
    return documents.OipDone()


@router.api_route("/v2/systemsharedmemory/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/v2/cudasharedmemory/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
async def shared_memory(request: Request) -> None:
    raise NotFound("memory is not shared with clients here; send and take tensors in bodies")


async def _parameters(request: Request) -> dict[str, Any]:
    parameters = (await _small(request)).get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadBody('"parameters" is an object')
    return parameters


async def _small(request: Request) -> dict[str, Any]:
    """A small JSON object, or nothing, which is an empty one. Raises BadBody."""
    async with raw_body(request, small=True) as raw:
        text = raw.data.strip()
    try:
        document = from_json(text, allow_inf_nan=False) if text else {}
    except ValueError as error:
        raise BadBody(f"the body is not JSON: {error}; send {{}}, or nothing") from None
    if not isinstance(document, dict):
        raise BadBody("the body is a JSON object, or empty")
    return document


def _version(request: Request) -> str:
    version: str = request.path_params.get("version", documents.VERSION)
    return version


def _ref(request: Request) -> str:
    """The model that a path names, as the registry knows it; a version is 1, or the bundle's digest."""
    name: str = request.path_params["model"]
    version = _version(request)
    return name if version == documents.VERSION or name.endswith(f"@{version}") else f"{name}@{version}"


def _served(request: Request) -> Served:
    return served_of(request, _ref(request))
