"""A proxy that is trusted says for whom it asks; nobody else does."""

from typing import Any

import pytest

from service.api.client_address import TrustedProxies, group_of
from service.settings import Settings, SettingsError


def client(trusted: str, peer: str | None, *forwarded: str) -> str:
    scope: dict[str, Any] = {
        "client": None if peer is None else (peer, 4711),
        "headers": [(b"x-forwarded-for", text.encode("latin-1")) for text in forwarded],
    }
    return TrustedProxies.from_settings(Settings(trusted_proxies=trusted)).client(scope)


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", "192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("", "127.0.0.1", ["203.0.113.9"], "127.0.0.1"),
        ("", None, ["203.0.113.9"], ""),
        ("10.0.0.0/8", "192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.0/8", "10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.0/8", "10.1.2.3", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the left one anybody may have written
        ("10.0.0.0/8", "10.1.2.3", ["1.1.1.1", "203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.0/8", "10.1.2.3", [], "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3", ["10.4.4.4"], "10.4.4.4"),
        ("10.0.0.0/8", "10.1.2.3", ["203.0.113.9, unknown"], "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3", ["203.0.113.9, ,"], "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3", ["203.0.113.9:5555"], "203.0.113.9"),
        ("10.0.0.0/8", "10.1.2.3", ["[2001:db8::5]:5555"], "2001:db8::5"),
        ("10.0.0.0/8", "::ffff:10.1.2.3", ["2001:db8::5"], "2001:db8::5"),
        ("::1, 10.0.0.7", "::1", ["203.0.113.9, 10.0.0.7"], "203.0.113.9"),
    ],
)
def test_the_right_most_that_is_not_trusted(
    trusted: str, peer: str | None, forwarded: list[str], expected: str
) -> None:
    assert client(trusted, peer, *forwarded) == expected


@pytest.mark.parametrize("text", ["proxy.local", "10.0.0.1/8", "10.0.0.0/33", "0.0.0.0/0", "::/0", "*"])
def test_what_names_no_network_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="TESSERA_TRUSTED_PROXIES"):
        TrustedProxies.from_settings(Settings(trusted_proxies=f"127.0.0.1,{text}"))


def test_groups() -> None:
    assert group_of("198.51.100.7") == group_of("::ffff:198.51.100.7") == "198.51.100.7"
    assert group_of("2001:db8::1") == group_of("2001:db8::ffff:ffff:1") != group_of("2001:db8:0:1::1")
    assert group_of("fe80::1%eth0") == "fe80::/64"
    assert group_of("") == ""
