"""Names a server answers to: loopback's and TESSERA_HOSTS', no others where it matters."""

from typing import Any

import pytest

from service.api.hosts import AllowedHosts
from service.api.problems import status_of
from service.errors import BadHost, Misdirected
from service.settings import Settings, SettingsError


def ask(hosts: str, *sent: str | bytes, loopback: bool = True, probe: bool = False, version: str = "1.1") -> None:
    raw = [(b"host", text if isinstance(text, bytes) else text.encode()) for text in sent]
    scope: dict[str, Any] = {"headers": [*raw, (b"accept", b"*/*")], "http_version": version}
    AllowedHosts.from_settings(Settings(hosts=hosts), loopback=loopback).check(scope, probe=probe)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8000",
        "localhost.",
        "127.0.0.1",
        "127.9.8.7:1",
        "[::1]",
        "[::1]:8000",
        "[::ffff:127.0.0.1]",
    ],
)
def test_loopback_answers_to_its_names(host: str) -> None:
    ask("", host)
    ask("api.example.org", host, loopback=False)


@pytest.mark.parametrize(
    "host",
    [
        "example.org", "localhost.example.org", "127.0.0.1.example.org", "xlocalhost", "127.1", "0.0.0.0", "10.0.0.1",
        "[::]", "[2001:db8::1]", "::1", "localhost:80:80", "localhost:http", "a@localhost", "localhost/x", "local host",
        "", " ", ":8000", b"\xff\xfe", "localhost,example.org", "[::1", "１２７.0.0.1",
    ],
)  # fmt: skip
def test_and_to_no_other(host: str | bytes) -> None:
    for probe in (False, True):
        with pytest.raises(Misdirected, match="TESSERA_HOSTS") as refused:
            ask("", host, probe=probe)
    assert status_of(refused.value) == 421
    assert str(refused.value).isprintable()


def test_beyond_loopback_it_matters_where_names_are_given() -> None:
    ask("", "example.org", loopback=False)
    ask("api.example.org", "api.example.org:8000", loopback=False)
    with pytest.raises(Misdirected):
        ask("api.example.org", "example.org", loopback=False)
    ask("api.example.org", "10.0.0.9:8000", loopback=False, probe=True)  # kubelet asks so


@pytest.mark.parametrize(
    ("hosts", "host", "answered"),
    [
        ("a.example.org, B.example.org.", "b.EXAMPLE.org:1", True),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "example.org.evil.test", False),
        ("*.example.org", "aexample.org", False),
        ("[2001:db8::7]", "[2001:db8::7]:8000", True),
        ("192.0.2.7", "192.0.2.7:8000", True),
        ("*", "anything.at.all", True),
        ("*", "", True),
    ],
)
def test_names_and_endings(hosts: str, host: str, answered: bool) -> None:
    if answered:
        ask(hosts, host)
    else:
        with pytest.raises(Misdirected):
            ask(hosts, host)


def test_one_host_header_or_of_http_1_0_none() -> None:
    ask("", version="1.0")
    for sent in ((), ("localhost", "localhost"), ("localhost", "example.org")):
        with pytest.raises(BadHost, match="Host") as refused:
            ask("", *sent)
        assert status_of(refused.value) == 400
    with pytest.raises(BadHost):
        ask("", "localhost", "example.org", version="1.0")


def test_a_name_is_judged_anew_for_every_server() -> None:
    hosts = AllowedHosts(loopback=True)
    for _ in range(3):
        hosts.check({"headers": [(b"host", b"localhost:8000")], "http_version": "1.1"}, probe=False)
        with pytest.raises(Misdirected):
            hosts.check({"headers": [(b"host", b"example.org")], "http_version": "1.1"}, probe=False)


@pytest.mark.parametrize("text", ["http://a.example", "a.example:8000", "a b", "*.", "a.*", "ä.example", "a/b", "[::1"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="TESSERA_HOSTS"):
        AllowedHosts.from_settings(Settings(hosts=f"localhost,{text}"), loopback=True)
