"""Pages of other sites: whose scripts may read answers (CORS), and whose requests are refused.

A page may have a browser send a POST anywhere without asking. No key goes with it, but where none is needed it would be
served. Knows nothing of keys or routes.
"""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import PROBLEM, plain
from service.errors import NotAllowed, quoted
from service.settings import Settings, SettingsError

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:\d{1,5})?")
_DEFAULT_PORT = re.compile(r"(?<=^http:)(//.*):80$|(?<=^https:)(//.*):443$")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SENT = ("Authorization", "X-API-Key", "X-Request-ID", "traceparent", "If-Match", "If-None-Match")
_READ = (
    "X-Request-ID",
    "X-Model",
    "X-Familiarity",
    "X-Orientation",
    "X-Warning",
    "Server-Timing",
    "ETag",
    "Retry-After",
    "Warning",
)


class AllowedOrigins:
    """The origins, besides the server's own, whose pages may ask."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """origins  `https://app.example.org`, as browsers write them; `*`: any."""
        self._origins = frozenset(origins)

    @classmethod
    def from_settings(cls, settings: Settings, *, keys: bool) -> "AllowedOrigins":
        """Those of TESSERA_ORIGINS, separated by commas. `keys`: whether one is needed. Raises SettingsError."""
        origins = [text.strip().lower() for text in settings.origins.split(",") if text.strip()]
        for origin in origins:
            if origin == "*" and not keys:
                raise SettingsError(
                    "TESSERA_ORIGINS: * lets every page in the world ask where no key is needed; name origins, or set"
                    " TESSERA_KEYS"
                )
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise SettingsError(
                    f"TESSERA_ORIGINS: {quoted(origin)} is no origin; write scheme, name and port without a path or a"
                    " pattern, such as https://app.example.org, or * for any"
                )
        return cls(_DEFAULT_PORT.sub(r"\1\2", origin) for origin in origins)

    def check(self, scope: Scope) -> None:
        """Raises NotAllowed for a request, of a kind that may change something, that another site's page made.

        Source: Go's net/http CrossOriginProtection. Who sends neither header is no browser.
        """
        if scope["method"] in _SAFE or "*" in self._origins:
            return
        origin = site = host = b""
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"host":
                host = value
        if site in (b"same-origin", b"none") or not (site or origin):
            return
        text = origin.decode("latin-1").lower()
        if text in self._origins:
            return
        own = host.decode("latin-1").lower()
        if not site and own and text in (f"http://{own}", f"https://{own}", *_without_port(own)):
            return
        raise NotAllowed(f"a page of {quoted(text) if text else 'another site'} asks; TESSERA_ORIGINS adds origins")

    def cors(self, app: ASGIApp) -> ASGIApp:
        """`app`, with the headers that let these origins' scripts read its answers."""
        if not self._origins:
            return app
        return _CORS(
            app, sorted(self._origins), allow_methods=_METHODS, allow_headers=_SENT, expose_headers=_READ, max_age=600
        )


class _CORS(CORSMiddleware):
    """Starlette's, whose refusals are problem documents as all others."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks before it sends."""
        answer = super().preflight_response(request_headers)
        return _Refused(answer) if answer.status_code >= 400 else answer


class _Refused(Response):
    """A refused preflight as a problem document; its id is known once it is sent."""

    def __init__(self, refusal: Response) -> None:
        super().__init__(status_code=refusal.status_code)
        self._why = bytes(refusal.body).decode()
        self._allowed = {k: v for k, v in refusal.headers.items() if k not in ("content-type", "content-length")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"{self._why}; TESSERA_ORIGINS adds origins"
        document = plain(self.status_code, detail, scope["state"]["request_id"])
        await JSONResponse(document, self.status_code, self._allowed, PROBLEM)(scope, receive, send)


def _without_port(own: str) -> tuple[str, ...]:
    """The origins of a host whose port is its scheme's: browsers leave it out of one, proxies may not of the other."""
    if own.endswith(":443"):
        return (f"https://{own[:-4]}",)
    return (f"http://{own[:-3]}",) if own.endswith(":80") else ()
