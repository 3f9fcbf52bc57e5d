"""Names a server answers to. A page elsewhere can point a name of its own at 127.0.0.1 and have a browser ask there, as
if the server were its own (DNS rebinding): the Host header tells.

Knows nothing of routes.
"""

import ipaddress
import re
from collections.abc import Iterable

from starlette.types import Scope

from service.errors import BadHost, Misdirected, quoted
from service.settings import Settings, SettingsError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::\d{0,5})?", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\]")
_REMEMBERED = 64


class AllowedHosts:
    """The names of one server: those of loopback and of TESSERA_HOSTS; any, where neither is asked for."""

    def __init__(self, names: Iterable[str] = (), *, loopback: bool = False) -> None:
        """names  `api.example.org`, `*.example.org` (what ends so), `*` (any).

        loopback  the server is bound there, and so needs no probe from elsewhere
        """
        self._names = frozenset(names)
        self._endings = tuple(name[1:] for name in self._names if name.startswith("*."))
        self._active = (loopback or bool(self._names)) and "*" not in self._names
        self._loopback = loopback
        self._seen: set[bytes] = set()

    @classmethod
    def from_settings(cls, settings: Settings, *, loopback: bool) -> "AllowedHosts":
        """Those of TESSERA_HOSTS, separated by commas. Raises SettingsError."""
        names = [name.strip().lower() for name in settings.hosts.split(",") if name.strip()]
        for name in names:
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"TESSERA_HOSTS: {quoted(name)} is no host's name; write names without a port, separated by"
                    " commas, such as api.example.org, *.example.org, [2001:db8::7], or * for any"
                )
        return cls((name.removesuffix(".") for name in names), loopback=loopback)

    def check(self, scope: Scope, *, probe: bool) -> None:
        """Raises Misdirected for a request that names another host; BadHost where it names none, or several.

        probe  it asks how the server is: beyond loopback that is answered to any name, as balancers use addresses
        """
        if not self._active or (probe and not self._loopback):
            return
        sent = [value for name, value in scope["headers"] if name == b"host"]
        if len(sent) == 1:
            if sent[0] not in self._seen:
                self._judge(sent[0])
        elif sent or scope["http_version"] != "1.0":  # browsers always send one; HTTP/1.0 need not
            raise BadHost("a request has one Host header")

    def _judge(self, sent: bytes) -> None:
        text = sent.decode("latin-1")
        found = _HOST.fullmatch(text)
        name = found[1].lower() if found else ""
        if not (_is_loopback(name) or name in self._names or name.endswith(self._endings or ("\n",))):
            raise Misdirected(f"this server does not answer to the name {quoted(text)}; TESSERA_HOSTS adds names")
        if len(self._seen) < _REMEMBERED:
            self._seen.add(sent)


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        ip = ipaddress.IPv6Address(name[1:-1]) if name.startswith("[") else ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
