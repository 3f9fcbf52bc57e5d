"""The routes, and what starts and stops with them.

Knows nothing of pixels: it reads a request, asks a room, and sends what comes back.
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match, Route
from starlette.types import Scope

from models.bundle import Bundle
from models.errors import TesseraError
from service.api import body, canary_counts, canary_fleet, class_views, job_views, openapi, responses
from service.api.auth import ApiKeys
from service.api.binding import Binding
from service.api.client_address import TrustedProxies
from service.api.dependencies import state_of
from service.api.hosts import AllowedHosts
from service.api.middleware import InFlight, RequestMiddleware, problem
from service.api.origins import AllowedOrigins
from service.api.problems import plain, problem_of
from service.api.protocols import hugging_face, x_anylabeling
from service.api.protocols.label_studio import routes as label_studio
from service.api.protocols.label_studio.task_images import TaskImages
from service.api.protocols.open_inference import routes as open_inference
from service.api.routes import canary, classes, clusters, health, jobs, models, segment
from service.api.scrape import Scrape
from service.api.security_headers import security_headers
from service.api.state import AppState, Lifecycle
from service.engines import Engine
from service.errors import BadOption, Busy, DeadlinePassed, KeyMissing, NotFound, explain, nearest, quoted
from service.fleet.fleet import Call, Fleet
from service.inference import options
from service.inference.comparison import Comparisons
from service.inference.runtime import Runtime
from service.jobs.jobs import Jobs
from service.metrics import Metrics, tessera_version
from service.nvml import DeviceMeter
from service.repository.canary import Canary
from service.repository.registry import Registry
from service.repository.shared_models import SharedModels
from service.scheduling.background import as_exception, spawn
from service.scheduling.watchdog import Watchdog
from service.settings import Settings
from service.tracing.setup import tracer_of

log = logging.getLogger("tessera")

_LOOK_S = 0.02
WEB = Path(__file__).parent / "web"
# FastAPI tells by itself as soon as anything in the process sets a global provider of OpenTelemetry, and with the query
# and the messages of exceptions (findings/fastapi-traces-by-itself.sh). Older versions take no notice of this.
_NO_TELEMETRY: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
_QUERIES: dict[str, type[BaseModel]] = {
    "/clusters": responses.ClustersQuery,
    "/classes/suggest": class_views.SuggestQuery,
    "/classes/import": class_views.ImportQuery,
    "/jobs": job_views.JobsQuery,
}


def create_app(
    settings: Settings | None = None,
    open_engine: Callable[[Bundle], Engine] | None = None,
    binding: Binding = Binding(),  # noqa: B008
    fleet: Fleet | None = None,
) -> FastAPI:
    """The application. `open_engine` puts another runtime under it, as tests do; `binding` says where it listens.

    fleet  what reaches the other servers under its address; none: it is alone
    """
    settings = settings or Settings.from_env(os.environ)
    metrics = Metrics()
    fleet = fleet or Fleet()
    tracer = tracer_of(settings, tessera_version(), fleet.member)
    runtime = Runtime.of(settings, metrics, fleet)
    runtime.tracer = tracer
    registry = Registry(settings, metrics, open_engine)
    TaskImages.from_settings(settings)  # settings that cannot be used are refused now
    keys, proxies = ApiKeys(settings, fleet), TrustedProxies.from_settings(settings)
    jobs_here = Jobs(settings, metrics, registry, runtime)
    in_flight, shared = InFlight(settings.max_requests, fleet), SharedModels(registry, fleet)
    trial = Canary(registry, metrics, settings.canary_share)
    compared = Comparisons(registry, runtime, trial, settings.timeout_s)
    state = AppState(
        settings, metrics, registry, runtime, in_flight, keys, proxies, jobs_here, shared, trial, compared, fleet
    )
    scrape, kept_counts = Scrape(state), canary_counts.Keeping(fleet, trial)

    async def show_names(arguments: Call) -> Call:
        await registry.refresh()
        return {}

    fleet.on("names", show_names)
    canary_fleet.listen(state)
    served = registry.served
    metrics.watch("requests_waiting", "Images that no batch has taken", lambda: sum(s.batcher.waiting for s in served))
    metrics.watch("requests_running", "Images in the network now", lambda: sum(s.batcher.running for s in served))
    metrics.watch("oldest_request_seconds", "Age of the oldest image in the house", runtime.admission.oldest_s)
    metrics.watch("cache_bytes", "Held for images asked again", lambda: runtime.network_outputs.nbytes)
    metrics.watch("ready", "1 while /readyz says so", lambda: state.not_ready() is None)
    metrics.watch("names_kept", "0 while cluster names cannot be written", lambda: registry.names_kept)
    meter = DeviceMeter.find()
    if meter is not None:
        metrics.watch_devices(meter.devices)

    beats = fleet.count("beats")

    def beat(passed_s: float) -> None:
        # 0 while it loads or drains: the parent does not judge it then
        beats.set(beats.own + 1 if state.lifecycle is Lifecycle.READY else 0)

    watchdog = Watchdog(
        [beat, registry.recovery.tend, runtime.tend, trial.tend, lambda _: _end_when_lost(state)],
        metrics.loop_lag.observe,
        settings.engine_timeout_s,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.starting = spawn(_start(state), "the start")  # /livez answers meanwhile, /readyz says 503
        watching = spawn(watchdog.run(), "the watchdog")
        keeping = spawn(kept_counts.run(), "keeping what the canary counted")
        jobs_here.start()
        await fleet.start()
        scrape.start()
        if meter is not None:
            meter.start()
        while fleet.late and state.lifecycle is Lifecycle.LOADING:
            await asyncio.sleep(_LOOK_S)
        beat(0)
        yield
        if meter is not None:
            meter.close()
        await fleet.close()
        scrape.close()
        state.starting.cancel()
        await asyncio.gather(state.starting, return_exceptions=True)
        await jobs_here.close()
        compared.close()
        keeping.cancel()
        await kept_counts.keep()
        await registry.close()
        runtime.close()
        watching.cancel()
        if tracer is not None:
            await tracer.close()

    app = FastAPI(
        title="Tessera",
        summary="Unsupervised semantic segmentation",
        version=tessera_version(),
        lifespan=lifespan,
        openapi_url=None,  # ours is rendered once
        docs_url=None,  # both pages would fetch their scripts from elsewhere; `/docs` is ours
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.tessera, app.state.scrape = state, scrape
    describe = app.openapi
    app.openapi = lru_cache(1)(lambda: openapi.secured(describe()))  # type: ignore[method-assign]
    document = lru_cache(4)(lambda root: json.dumps(openapi.placed(app.openapi(), root)).encode())

    async def described(request: Request) -> Response:
        return Response(document(request.scope["root_path"]), media_type="application/json")

    app.add_api_route("/openapi.json", described, include_in_schema=False)
    for room in (
        segment,
        clusters,
        classes,
        canary,
        models,
        jobs,
        health,
        open_inference,
        hugging_face,
        label_studio,
        x_anylabeling,
    ):
        app.include_router(room.router)
    app.include_router(label_studio.router, prefix="/label-studio", include_in_schema=False)
    for path, endpoint in (*open_inference.INFER, ("/similar", segment.similar), ("/segment", segment.segment)):
        app.router.routes.insert(0, _Direct(path, endpoint, methods=["POST"]))
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/llms.txt", _for_language_models, include_in_schema=False)
    app.add_api_route("/docs", _explorer, include_in_schema=False)
    app.add_api_route("/web/index.html", _to_the_page, include_in_schema=False)
    for path in ("/docs/", "/web/docs/index.html"):
        app.add_api_route(path, _to_the_explorer, include_in_schema=False)
    app.mount("/web", GZipMiddleware(_Static(directory=WEB), minimum_size=500), name="web")
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        in_flight=state.in_flight,
        proxies=proxies,
        hosts=AllowedHosts.from_settings(settings, loopback=binding.loopback),
        origins=AllowedOrigins.from_settings(settings, keys=keys.needed),
        security_headers=security_headers(tls=binding.tls, loopback=binding.loopback),
        root_path=binding.root_path,
        access_log=settings.access_log,
        tracer=tracer,
    )
    app.add_exception_handler(TesseraError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_options)
    app.add_exception_handler(HTTPException, _refuse_route)
    return app


async def _start(state: AppState) -> None:
    """Load the models; then compile what the CRF lacks. A failure ends the server, which says why."""
    try:
        await state.models.start()
    except asyncio.CancelledError:  # the server ends
        raise
    except BaseException as error:  # what is not ours as well: a server that stays in `loading` helps nobody
        known = isinstance(error, TesseraError)
        said = error if known else f"cannot serve: {type(error).__name__}: {as_exception(error)}"
        log.critical("%s", said, exc_info=None if known else error)
        state.fail(str(said))
        return
    if state.lifecycle is Lifecycle.LOADING:
        state.lifecycle = Lifecycle.READY
        state.fleet.keep("ready", True)
    await canary_fleet.begin(state)
    await state.runtime.warmup.run(served.clusters.count for served in state.registry.served)


def _end_when_lost(state: AppState) -> None:
    """A server whose default model is gone for good ends, for a supervisor to start it anew."""
    if (lost := state.registry.recovery.lost) is not None and state.lifecycle is Lifecycle.READY:
        state.fail(lost)


class _Direct(Route):
    """A route that gets the request and nothing else. FastAPI describes it, and would take 50 µs to call it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, "route": self}


class _Static(StaticFiles):
    """Files that browsers ask for again, by their ETag: modules of two versions never meet."""

    def file_response(self, *given: Any, **more: Any) -> Response:
        answer = super().file_response(*given, **more)
        answer.headers["cache-control"] = "no-cache"
        return answer


async def _page() -> FileResponse:
    return FileResponse(WEB / "index.html", headers={"cache-control": "no-cache"})


async def _explorer() -> FileResponse:
    return FileResponse(WEB / "docs" / "index.html")


async def _for_language_models() -> FileResponse:
    return FileResponse(WEB / "llms.txt", media_type="text/plain; charset=utf-8")


async def _to_the_page(request: Request) -> RedirectResponse:
    """To where the page's relative links lead."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/", 308)


async def _to_the_explorer(request: Request) -> RedirectResponse:
    """To where its relative links lead."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs", 308)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, TesseraError)
    headers = {}
    if isinstance(error, Busy):
        headers["retry-after"] = str(error.retry_after_s)
        if error.reason != "not_ready":
            state_of(request).metrics.refused.labels(error.reason).inc()
    if isinstance(error, KeyMissing):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, DeadlinePassed):
        state_of(request).metrics.refused.labels("deadline").inc()
    document = problem_of(error, request.state.request_id)
    return problem(request.scope["state"], document, headers)


async def _refuse_options(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if errors[0]["loc"][0] == "path":
        return await _refuse(request, NotFound(f"{quoted(str(errors[0]['input']))} is no number; ids count from 0"))
    model = _QUERIES.get(request.state.path, options.ModelQuery)
    return await _refuse(request, BadOption(explain(errors, options.descriptions(model))))


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.state.path
    if not path:  # a root path without the slash behind it
        return await _to_the_page(request)
    detail = str(error.detail)
    if error.status_code == 404:
        hint = nearest(path, request.app.openapi()["paths"])
        detail = f"there is nothing at {quoted(path, 100)}{hint or '; /openapi.json lists what there is'}"
    elif error.status_code == 405:
        allowed = ", ".join(_methods(request))
        detail = f"{quoted(request.method)} is not for {quoted(path, 100)}; use {allowed}"
        if path == "/segment":
            detail += f": {body.CURL} '{request.url.replace(query='format=overlay')}' -o overlay.jpg"
    document = plain(error.status_code, detail, request.state.request_id)
    headers = {"allow": allowed} if error.status_code == 405 else error.headers
    return problem(request.scope["state"], document, headers)


def _methods(request: Request) -> list[str]:
    """What can be done at a request's path: what its routes answer, asked of each."""
    if request.state.path.startswith("/web/"):  # files; a mount takes every method, and then refuses it
        return ["GET"]
    routes = request.app.router.routes
    asked = {method: {**request.scope, "method": method} for method in ("DELETE", "GET", "PATCH", "POST", "PUT")}
    return [name for name, scope in asked.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)]
