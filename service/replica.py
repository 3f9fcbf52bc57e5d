"""One server as a replica on Ray Serve: ready once its models are, and never asked for longer than Ray lets it live.

Knows nothing of how many replicas there are, or of what the operator wrote.
"""

import asyncio
import logging
from collections.abc import Callable

import ray
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models import hardware
from models.bundle import Bundle
from models.errors import TesseraError
from service import logs
from service.api.binding import Binding, is_loopback
from service.api.middleware import problem
from service.api.problems import problem_of
from service.api.state import AppState, Lifecycle
from service.app import create_app
from service.engines import Engine
from service.engines import check_installed as check_engine
from service.errors import DeadlinePassed, quoted
from service.fleet.fleet import Call
from service.fleet.replicas import Replicas
from service.settings import Settings, SettingsError, check_bundles, embedded

log = logging.getLogger("tessera")

MARGIN_S = 10.0  # of a replica's last seconds, in which nothing that was asked is left
_LOOK_S = 0.05


class Unwell(TesseraError):
    """A replica that another should take the place of."""


def shortest_shutdown_s(settings: Settings) -> float:
    """The least `graceful_shutdown_timeout_s` with which no request that these settings allow is cut off by Ray."""
    return settings.body_timeout_s + settings.timeout_s + MARGIN_S


def check_shutdown(shutdown_s: float, settings: Settings) -> None:
    """Raises SettingsError where Ray would end a replica whose requests may go on."""
    if shutdown_s < (least_s := shortest_shutdown_s(settings)):
        raise SettingsError(
            f"graceful_shutdown_timeout_s: {shutdown_s:g} is too short: a request may take"
            f" {settings.body_timeout_s:g} s to come (TESSERA_BODY_TIMEOUT_S) and"
            f" {settings.timeout_s:g} s to be answered (TESSERA_TIMEOUT_S), and"
            f" whatever lasts longer than a replica that ends is answered with a bare 500; make it {least_s:g} or more,"
            " or those shorter"
        )


class Replica:
    """What Ray makes of the deployment: a server without a port of its own.

    settings      as they were read where the application was built
    open_to_all   serve without keys beyond loopback
    open_engine   another runtime in the place of ours, as tests have

    Raises SettingsError, UsageError for what cannot be used on this machine.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self,
        settings: Settings,
        open_to_all: bool = False,
        open_engine: Callable[[Bundle], Engine] | None = None,
    ) -> None:
        context = serve.get_replica_context()
        logs.set_up(settings.log, {"replica": context.replica_tag})  # Ray keeps it, and shows it to who deployed
        shutdown_s = float(context._deployment_config.graceful_shutdown_timeout_s)
        check_shutdown(shutdown_s, settings)
        if cpus := ray.get_runtime_context().get_assigned_resources().get("CPU"):
            hardware.share_cores(cpus)
        if not settings.bundles:
            settings = settings.model_copy(update={"bundles": embedded()})
        check_bundles(settings)
        check_engine(settings)
        host = await _listens_on()
        loopback = host is not None and is_loopback(host)
        self._fleet = Replicas("asked")
        app = create_app(settings, open_engine, Binding(loopback), self._fleet)
        self._state: AppState = app.state.tessera
        if not (loopback or self._state.keys.needed or open_to_all):
            raise SettingsError(
                f"Ray listens on {quoted(host or 'any address')}, which is reached from other machines, and everybody"
                " there could ask and rename: set TESSERA_KEYS_FILE (or TESSERA_KEYS), or the argument open=true where"
                " that is meant"
            )
        self._app = Bounded(app, shutdown_s - MARGIN_S)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app

    async def check_health(self) -> None:
        """Ray's question, which it first asks before the replica is given requests: so that waits for the models.

        Raises Unwell with the reason: a first time it fails the start, several times in a row it ends the replica.
        """
        while self._state.lifecycle is Lifecycle.LOADING:
            await asyncio.sleep(_LOOK_S)
        if trouble := self._state.trouble():
            raise Unwell(trouble)

    async def asked(self, asker: str, message: Call, limit_s: float) -> tuple[str, Call]:
        """Another replica's call."""
        return await self._fleet.heard(asker, message, limit_s)


class Bounded:
    """The app between Ray and ours: every request ends with an answer of ours before Ray would end its replica.

    limit_s  that a request may take, from its first byte to its answer's last
    """

    def __init__(self, app: ASGIApp, limit_s: float) -> None:
        self._app, self._limit_s = app, limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                # Ray adds the id that it gave or was given to every answer: ours, unless that was no good.
                headers = [header for header in message["headers"] if header != (b"x-request-id", given)]
                message = {**message, "headers": headers}
            await send(message)

        try:
            async with asyncio.timeout(self._limit_s):
                await self._app(scope, receive, sent)
        except TimeoutError:
            said = f"the request was not answered within {self._limit_s:g} s, as long as a replica that ends has for it"
            log.warning("%s: request %s", said, state.get("request_id"))
            if started:
                raise
            answer = problem(state, problem_of(DeadlinePassed(said), state["request_id"]))
            await answer(scope, receive, sent)


async def _listens_on() -> str | None:
    """The address that Ray's proxies listen on; None where Ray does not tell."""
    try:
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        return str((await controller.get_http_config.remote()).host)
    except Exception as error:
        log.warning("Ray does not say where it listens (%s): taken for any address", error)
        return None
