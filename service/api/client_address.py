"""Whose address a request comes from: the peer's, or what a trusted proxy says of it.

Knows nothing of keys, connections or routes.
"""

import ipaddress
from collections.abc import Iterator
from functools import lru_cache

from starlette.types import Scope

from service.errors import quoted
from service.settings import Settings, SettingsError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MOST_HOPS = 32


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed."""

    def __init__(self, networks: tuple[Network, ...] = ()) -> None:
        self._networks = networks

    @classmethod
    def from_settings(cls, settings: Settings) -> "TrustedProxies":
        """Those of TESSERA_TRUSTED_PROXIES: addresses and networks, separated by commas. Raises SettingsError."""
        networks: list[Network] = []
        for text in filter(None, map(str.strip, settings.trusted_proxies.split(","))):
            try:
                network = ipaddress.ip_network(text)
            except ValueError:
                raise SettingsError(
                    f"TESSERA_TRUSTED_PROXIES: {quoted(text)} is no address and no network; write for instance"
                    " 10.0.0.7 or 10.0.0.0/8"
                ) from None
            if network.prefixlen == 0:
                raise SettingsError(
                    f"TESSERA_TRUSTED_PROXIES: {quoted(text)} lets every client say who it is; name your proxies"
                )
            networks.append(network)
        return cls(tuple(networks))

    def client(self, scope: Scope) -> str:
        """The address a request comes from; `` where its connection has none (a Unix socket).

        A trusted proxy tells for whom it asks: the right-most address of X-Forwarded-For that is not itself trusted.
        What stands left of that anybody may have written.
        """
        peer = scope.get("client")
        if not peer:
            return ""
        address: str = peer[0]
        if not self._networks or not self.trusts(address):
            return address
        for hop in _hops(scope):
            if (parsed := _parsed(hop)) is None:
                break  # a proxy's "unknown": what it got is all there is
            address = str(parsed)
            if not self.trusts(address):
                break
        return address

    def trusts(self, address: str) -> bool:
        """Whether this is one of the proxies."""
        ip = _parsed(address)
        return ip is not None and any(ip in network for network in self._networks)


@lru_cache(4096)
def group_of(address: str) -> str:
    """Who shares a limit with an address: itself, or of IPv6 the /64, of which one customer has all."""
    ip = _parsed(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip or address)


def _hops(scope: Scope) -> Iterator[str]:
    """What X-Forwarded-For says, the nearest first."""
    sent = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    for hop in reversed(sent.decode("latin-1").split(",")[-_MOST_HOPS:]):
        yield hop.strip()


@lru_cache(4096)
def _parsed(text: str) -> Address | None:
    """An address as sockets and proxies write it: 1.2.3.4, 1.2.3.4:80, ::1, [::1]:80."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
