"""What both clients tell httpx: where the server is, the key, how connections are kept.

Knows nothing of calls.
"""

import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import httpx

from tessera.client.errors import NoAddress

URL: Final = "http://127.0.0.1:8000"
TIMEOUT_S: Final = 120.0
_CONNECT_S = 10.0
_KEPT_S = 60.0  # less than the server's TESSERA_KEEP_ALIVE_S: the client is the one who closes
_CONNECTIONS = 100
_PORTS = 2**16
_BARE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?(/.*)?")  # as people write localhost:8000


def settings(url: str, key: str | None) -> dict[str, Any]:
    """For httpx.Client and httpx.AsyncClient; an address without a scheme is http's. Raises NoAddress."""
    try:
        where = httpx.URL(f"http://{url}" if isinstance(url, str) and _BARE.fullmatch(url) else url)
    except (httpx.InvalidURL, TypeError) as error:
        raise NoAddress(f"{url!r} is no address: {error}") from None
    if where.scheme not in ("http", "https") or not where.host or (where.port or 0) >= _PORTS:
        raise NoAddress(f"{url!r} is no address; write it as {URL} or https://example.org/tessera")
    return {
        "base_url": where,
        "headers": {"user-agent": f"tessera/{_version()}", **({"x-api-key": key} if key else {})},
        "limits": httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_KEPT_S),
    }


def traced(headers: Mapping[str, str] | None) -> dict[str, str]:
    """A call's headers, and what tells the server in whose trace it is: where the program keeps traces by
    OpenTelemetry, and has loaded it itself."""
    sent = dict(headers or {})
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry import propagate

        propagate.inject(sent)
    return sent


def limits(left_s: float) -> httpx.Timeout:
    """Of one try that may take so long."""
    return httpx.Timeout(left_s, connect=min(left_s, _CONNECT_S))


def _version() -> str:
    try:
        return version("tessera-segmentation")
    except PackageNotFoundError:
        return "unknown"
