"""Where a server listens: what is loopback, what is free, which certificates fit."""

import socket
import ssl
from pathlib import Path

import pytest

from models.errors import TesseraError, UsageError
from service.api.binding import check_certificate, check_free, check_root_path, is_loopback
from tests.service.certificates import Pair, make_pair


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("127.1", True),  # the resolver's shorthand
        ("::1", True),
        ("localhost", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("0", False),
        ("::", False),
        ("", False),  # all there are
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("::ffff:192.0.2.1", False),
        ("169.254.1.1", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_a_name_is_loopback_if_all_it_stands_for_is(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"here": ["127.0.0.1", "::1"], "both": ["127.0.0.1", "192.0.2.1"], "there": ["192.0.2.1"]}

    def resolve(host: str, port: int, **options: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert [is_loopback(name) for name in known] == [True, False, False]


@pytest.mark.parametrize("host", ["no such name", "x" * 300, "a..b", "127.0.0.1:8000", "[::1]"])
def test_a_name_that_stands_for_nothing_is_told(host: str) -> None:
    with pytest.raises(UsageError, match="--host"):
        is_loopback(host)


def test_a_port_that_is_taken_and_an_address_of_another_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TesseraError, match=f"port {port}: address already in use") as refused:
            check_free("127.0.0.1", port)
        assert refused.value.exit_code == 1
    check_free("127.0.0.1", port)
    with pytest.raises(TesseraError, match=r"cannot listen on 192\.0\.2\.1"):
        check_free("192.0.2.1", port)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


def test_a_certificate_and_its_key(pair: Pair, tmp_path: Path) -> None:
    check_certificate(None, None)
    check_certificate(pair.certificate, pair.key)
    both = tmp_path / "both.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    check_certificate(both, None)


def test_what_does_not_fit_is_told(pair: Pair, tmp_path: Path) -> None:
    other = make_pair(tmp_path)
    locked = make_pair(tmp_path, name="locked", password="hush")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for certificate, key, says in (
        (None, pair.key, "--keyfile needs --certfile"),
        (tmp_path / "absent", pair.key, "--certfile: .*absent.*No such file"),
        (pair.certificate, tmp_path / "absent", "--keyfile: .*absent.*No such file"),
        (tmp_path, None, "--certfile: .*directory"),
        (pair.certificate, None, "--certfile and --keyfile"),
        (pair.certificate, other.key, "--certfile and --keyfile.*key values mismatch"),
        (text, pair.key, "--certfile and --keyfile"),
        (pair.key, pair.certificate, "--certfile and --keyfile"),
        (locked.certificate, locked.key, "without a password"),
    ):
        with pytest.raises(UsageError, match=says):
            check_certificate(certificate, key)


def test_a_client_that_trusts_the_certificate_finds_it_sound(pair: Pair) -> None:
    assert ssl.create_default_context(cafile=str(pair.certificate)).get_ca_certs()


@pytest.mark.parametrize(
    ("given", "path"), [("", ""), ("/", ""), ("/a", "/a"), ("/a/b-c.d_e~f/", "/a/b-c.d_e~f"), ("/~me", "/~me")]
)
def test_root_paths(given: str, path: str) -> None:
    assert check_root_path(given) == path


@pytest.mark.parametrize("given", ["a", "http://x/a", "/a b", "/a?b", "//a", "/a//b", "/../a", "/a/.", "/ä", "/a\n"])
def test_what_is_no_path_is_told(given: str) -> None:
    with pytest.raises(UsageError, match="--root-path"):
        check_root_path(given)
