"""Middleware around every request: an id, a clock, a log line, and a problem document for what goes wrong.

Knows nothing of routes, bodies or models.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import TesseraError
from service.api.client_address import TrustedProxies, group_of
from service.api.error_shapes import shape_of
from service.api.hosts import AllowedHosts
from service.api.origins import AllowedOrigins
from service.api.problems import internal, problem_of
from service.api.security_headers import RawHeaders
from service.errors import Busy, TooMany
from service.fleet.fleet import Fleet
from service.metrics import Metrics
from service.request_context import RequestContext, current
from service.timings import Timings
from service.tracing.traces import Attributes, RequestTrace, Tracer

log = logging.getLogger("tessera")

PROBES = frozenset(
    {
        "/livez",
        "/readyz",
        "/healthz",
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
        "/health",
        "/label-studio/health",
    }
)
BRIEF = frozenset({"/setup", "/versions", "/label-studio/setup", "/label-studio/versions"})  # answered in a full house
LINGER_S = 2.0
CLIENT_LEFT = 499  # nginx's number, in the metrics only: there is nobody to send it to
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def request_id(headers: Headers, trace: RequestTrace | None = None) -> str:
    """The caller's X-Request-ID or trace id where it is well formed, else that of our trace, or a new one."""
    given = headers.get("x-request-id", "")
    if _WELL_FORMED.fullmatch(given):
        return given
    theirs = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return theirs[1] if theirs else trace.id if trace else uuid.uuid4().hex


class InFlight:
    """Requests that are being answered now: so many in all servers of a fleet, and half as many of one client.

    running  those of this server
    closed   further ones are refused, and their connections closed
    """

    def __init__(self, max_requests: int, fleet: Fleet | None = None) -> None:
        fleet = fleet or Fleet()
        self._most, self._most_of_one = max_requests, max(1, max_requests // 2)
        self._running, self._of = fleet.count("requests"), fleet.tally("requests")
        self.closed = False

    @property
    def running(self) -> int:
        return int(self._running.own)

    def check(self, client: str) -> None:
        """Raises Busy, or TooMany where it is this client's own requests."""
        if self.closed:
            raise Busy("the server is shutting down; ask another, or again in a moment", reason="draining")
        if (running := int(self._running.total)) >= self._most:
            raise Busy(f"{running} requests are being answered", reason="too_many_requests")
        if (running := self._of.total(client)) >= self._most_of_one:
            raise TooMany(f"{running} requests of yours are being answered", reason="client_full")

    def enter(self, client: str) -> None:
        """One more."""
        self._running.add(1)
        self._of.add(client, 1)

    def leave(self, client: str) -> None:
        """One less."""
        self._running.add(-1)
        self._of.add(client, -1)


class DrainingResponse(JSONResponse):
    """An answer before the body was read to its end, after which the connection closes.

    Closing on unread bytes resets the connection, and the client may lose the answer with it: so what still comes is
    taken and thrown away for a moment first.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, listen a little longer, end."""
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})


def problem(
    state: Mapping[str, Any], document: dict[str, Any], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that carries a problem, in the shape of its path. `state` is the request's, as RequestMiddleware keeps
    it."""
    kind = DrainingResponse if state["unread"] else JSONResponse
    shape = shape_of(state["path"])
    return kind(shape.render(document), document["status"], headers, media_type=shape.media_type)


class RequestMiddleware:
    """Around the whole app. In the request's state: `request_id`, `timings` (ms by stage), `model`, `caller` (the name
    of its key), `path` (below the root path), `unread`, true until the body was read to its end, `head`, whether no
    answer's body is sent, and `trace`, None where it is not traced.

    security_headers  of every answer;  root_path  the path under which a proxy shows the server, stripped by it or not;
    where it is not given, what the server in front says of each request
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        in_flight: InFlight,
        proxies: TrustedProxies,
        hosts: AllowedHosts,
        origins: AllowedOrigins,
        security_headers: RawHeaders,
        root_path: str = "",
        access_log: bool = True,
        tracer: Tracer | None = None,
    ) -> None:
        self._app = origins.cors(app)
        self._proxies = proxies
        self._hosts = hosts
        self._origins = origins
        self._security_headers = security_headers
        self._root_path = root_path
        self._metrics = metrics
        self._traffic = in_flight
        self._access_log = access_log
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method: str = scope["method"]
        head = method == "HEAD"
        if head:  # what GET answers; the server leaves the body out, by its own copy of the scope
            scope = {**scope, "method": "GET"}
        started = time.perf_counter()
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        root = self._root_path or scope.get("root_path", "")
        state["path"] = path = _below(root, scope["path"])
        probe = path in PROBES
        trace = None if probe or self._tracer is None else self._tracer.request(method, headers, started, _told(scope))
        id = request_id(headers, trace)
        state.update(request_id=id, timings=Timings(()), model=None, caller="", unread=unread, head=head, trace=trace)
        working_on = current.set((RequestContext(id, span=trace and trace.span),))
        if root:
            scope = {**scope, "path": root + path, "root_path": root}
        status, size, error = CLIENT_LEFT, 0, ""

        async def send_with_headers(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            elif message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message, state, started)
                if self._traffic.closed:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        client = group_of(self._proxies.client(scope))
        inside = False
        try:
            self._hosts.check(scope, probe=probe)
            self._origins.check(scope)
            if not probe and state["path"] not in BRIEF:
                self._traffic.check(client)
            self._traffic.enter(client)
            inside = True
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            self._metrics.refused.labels("client_left").inc()
        except TesseraError as refusal:
            retry = {}
            if isinstance(refusal, Busy):
                self._metrics.refused.labels(refusal.reason).inc()
                retry["retry-after"] = str(refusal.retry_after_s)
            answer = problem(state, problem_of(refusal, state["request_id"]), retry)
            await self._origins.cors(answer)(scope, receive, send_with_headers)
        except Exception as failure:
            error = type(failure).__qualname__
            log.exception("%s %s failed, request %s", method, _path(scope), id)
            if status == CLIENT_LEFT:  # nothing was sent yet
                answer = problem(state, internal(state["request_id"]))
                await self._origins.cors(answer)(scope, receive, send_with_headers)
        finally:
            if inside:
                self._traffic.leave(client)
            took = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(route, status, took)
            if not probe and (self._access_log or status >= 400):
                fields = {
                    "method": method,
                    "path": _path(scope),
                    "route": route if route != "other" else "",
                    "status": status,
                    "took_ms": round(took * 1000, 1),
                    "response_bytes": size,
                    "model": state["model"],
                    "key": state["caller"],
                }
                told = {"fields": {name: value for name, value in fields.items() if value not in (None, "")}}
                log.info("%s %s %d %.1f ms %s", method, fields["path"], status, took * 1000, id, extra=told)
            if trace is not None:
                told_of = {"tessera.request_id": id, "tessera.model": state["model"], "tessera.key": state["caller"]}
                trace.attributes |= {name: value for name, value in told_of.items() if value}
                trace.end(None if route == "other" else route, None if status == CLIENT_LEFT else status, error)
            current.reset(working_on)

    def _add_headers(self, message: Message, state: dict[str, Any], started: float) -> None:
        total = (time.perf_counter() - started) * 1000
        timings = "".join(f"{stage};dur={ms:.2f}, " for stage, ms in state["timings"].so_far().items())
        message["headers"] += [
            (b"x-request-id", state["request_id"].encode()),
            *self._security_headers,
            (b"server-timing", f"{timings}total;dur={total:.2f}".encode()),
        ]
        if state["model"]:
            message["headers"].append((b"x-model", state["model"].encode()))


def _told(scope: Scope) -> Attributes:
    """What a trace tells of a request, by the names of OpenTelemetry's conventions. No query: it may hold a secret."""
    host, port = scope.get("server") or ("", None)
    told = {
        "url.scheme": scope["scheme"],
        "url.path": _path(scope),
        "network.protocol.version": scope.get("http_version", ""),
        "server.address": host,
    }
    return {**told, "server.port": port} if port else told


def _below(root: str, path: str) -> str:
    """The path below the root's, which some proxies strip and others do not."""
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path


def _path(scope: Scope) -> str:
    """The path as it was sent, percent-encoded: nothing a client writes can break a log line."""
    raw = scope.get("raw_path") or b""
    return "".join(c if c.isprintable() else "?" for c in raw.decode("ascii", "replace"))[:200]
