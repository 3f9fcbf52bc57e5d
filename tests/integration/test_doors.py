"""`tessera serve` at its doors: where it listens without keys, how it ends, https, keys read again."""

import http.client
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from models.errors import UsageError
from service import cli
from tests.service.certificates import make_pair
from tests.service.fakes import free_port
from tests.service.server import proved

ROOT = Path(__file__).parents[2]
SERVE = [sys.executable, "-P", "-c", "from tessera.cli import main; main()", "serve"]


def ended(*options: str, **environment: str) -> tuple[int, str]:
    """The exit code and the words of a start that fails."""
    done = subprocess.run(
        [*SERVE, *options], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stderr


@contextmanager
def serving(
    bundle: Path, state: Path, *options: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    settings = {"TESSERA_STATE": str(proved(bundle, state / "state")), "TESSERA_THREADS": "1", **environment}
    with (state / "log").open("w") as log:
        running = subprocess.Popen(
            [*SERVE, "--bundle", str(bundle), "--port", str(port), *options],
            cwd=ROOT,
            env={**os.environ, **settings},
            stderr=log,
        )
    try:
        said(state, " on http")
        yield running, port
    finally:
        running.kill()
        running.wait(10)


def said(state: Path, words: str) -> str:
    """The log, once these words are in it."""
    deadline = time.monotonic() + 20
    while words not in (log := (state / "log").read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(0.02)
    return log


def ask(connection: http.client.HTTPConnection, path: str, **headers: str) -> tuple[int, bytes]:
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.slow  # below, what is said of each in this process
def test_what_cannot_be_used_ends_with_2_and_what_is_taken_with_1() -> None:
    code, told = ended("--host", "0.0.0.0")
    assert code == 2
    (sentence,) = told.splitlines()
    for words in ("tessera serve: '0.0.0.0'", "TESSERA_KEYS", "TESSERA_KEYS_FILE", "--open", "OPEN=1"):
        assert words in sentence
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = ended("--port", str(port))
    assert code == 1
    assert told == f"tessera serve: cannot listen on 127.0.0.1 port {port}: address already in use; choose another\n"


class Served:
    """In uvicorn's place: it is only looked at what would be served, and where."""

    def __init__(self, config: Any, state: Any, *others: Any, **settings: Any) -> None:
        self.config, self.started = config, True
        state.runtime.close()

    def run(self, *sockets: Any) -> None:
        logging.getLogger("tessera").info("would listen on %s", self.config.host)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`cli.run` up to where it would listen."""
    monkeypatch.setattr(cli, "Server", Served)
    monkeypatch.setattr(cli.binding, "check_free", lambda host, port: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setenv("TESSERA_STATE", str(tmp_path))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("options", "environment", "says"),
    [
        ({"host": "::"}, {"TESSERA_ADMIN_KEY": "root"}, "'::'.*TESSERA_KEYS.*--open"),
        ({"host": ""}, {}, "''.*TESSERA_KEYS.*--open"),
        ({"host": "no such name", "open_to_all": True}, {}, "--host.*'no such name'"),
        ({"keyfile": Path("key.pem")}, {}, "--certfile"),
        ({"root_path": "tessera"}, {}, "--root-path"),
        ({}, {"TESSERA_TIMEOUT": "3"}, "TESSERA_TIMEOUT_S"),
        ({}, {"TESSERA_TIMEOUT_S": "inf"}, "TESSERA_TIMEOUT_S"),
        ({}, {"TESSERA_KEYS": "hush"}, "TESSERA_KEYS: entry 1"),
        ({}, {"TESSERA_KEYS_FILE": "/absent"}, "TESSERA_KEYS_FILE"),
        ({}, {"TESSERA_HOSTS": "http://x"}, "TESSERA_HOSTS"),
        ({}, {"TESSERA_ORIGINS": "x"}, "TESSERA_ORIGINS"),
        ({}, {"TESSERA_TRUSTED_PROXIES": "x"}, "TESSERA_TRUSTED_PROXIES"),
    ],
)
def test_a_setting_or_option_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=says) as refused:
        cli.run(**options)
    assert refused.value.exit_code == 2
    assert "hush" not in str(refused.value)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("host", "keys", "open_to_all", "says"),
    [
        ("0.0.0.0", "", True, "open: whoever reaches 0.0.0.0"),
        ("", "", True, "open: whoever reaches any address"),
        ("0.0.0.0", "anna=hush", False, ""),
        ("0.0.0.0", "anna=hush", True, ""),
        ("127.0.0.1", "", False, ""),
        ("127.0.0.1", "", True, ""),
        ("::1", "", False, ""),
        ("localhost", "", False, ""),
    ],
)
def test_where_it_listens_and_what_the_log_says_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str, keys: str,
    open_to_all: bool, says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("TESSERA_KEYS", keys)
    with caplog.at_level(logging.INFO):
        cli.run(host=host, open_to_all=open_to_all)
    assert f"would listen on {host}" in caplog.text
    assert ("open:" in caplog.text) == bool(says)
    assert says in caplog.text
    if not keys and says:
        with pytest.raises(UsageError, match="--open"):
            cli.run(host=host)


@pytest.mark.slow
def test_https_and_names_of_this_machine(tiny_bundle: Path, tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    trusting = ssl.create_default_context(cafile=str(pair.certificate))
    with serving(
        tiny_bundle, tmp_path, "--certfile", str(pair.certificate), "--keyfile", str(pair.key), "--root-path", "/t/"
    ) as (_, port):
        for host in ("localhost", "127.0.0.1"):
            status, body = ask(http.client.HTTPSConnection(host, port, timeout=20, context=trusting), "/t/livez")
            assert (status, json.loads(body)) == (200, {"live": True})
        away = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=trusting)
        assert ask(away, "/livez", Host="rebound.example")[0] == 421
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as old,
        ):
            old.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            assert old.recv(15).endswith(b" 200 OK")
        log = said(tmp_path, f"on https://127.0.0.1:{port}/")
        assert "http://" not in log


def test_sighup_reads_keys_again_and_a_bad_file_changes_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    keys, admin = tmp_path / "keys", tmp_path / "admin"
    keys.write_text("anna=red hen\n")
    admin.write_text("old fox\n")
    files = {"TESSERA_KEYS_FILE": str(keys), "TESSERA_ADMIN_KEY_FILE": str(admin)}
    with serving(tiny_bundle, tmp_path, **files) as (running, port):

        def known(secret: str) -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            return ask(connection, "/models", **{"X-API-Key": secret})[0] == 200

        assert [known(secret) for secret in ("red hen", "blue hen", "old fox")] == [True, False, True]
        keys.write_text("# new\nanna=blue hen\n")
        running.send_signal(signal.SIGHUP)
        said(tmp_path, "keys read again: anna, admin")
        assert [known(secret) for secret in ("red hen", "blue hen", "old fox")] == [False, True, True]
        keys.write_text("anna blue hen\n")
        running.send_signal(signal.SIGHUP)
        log = said(tmp_path, "the keys stay as they were: TESSERA_KEYS_FILE: line 1 has no '='")
        assert known("blue hen")
        assert running.poll() is None
        for secret in ("red hen", "blue hen", "old fox"):
            assert secret not in log


@pytest.mark.slow
def test_a_hangup_without_files_of_keys_ends_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, tmp_path) as (running, port):
        running.send_signal(signal.SIGHUP)
        said(tmp_path, "SIGHUP: there is no file of keys to read again")
        assert ask(http.client.HTTPConnection("localhost", port, timeout=10), "/livez")[0] == 200


@pytest.mark.slow
def test_a_second_sigterm_does_not_wait_and_is_no_failure(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        serving(tiny_bundle, tmp_path) as (running, port),
        socket.create_connection(("127.0.0.1", port), timeout=10) as unfinished,
    ):
        unfinished.sendall(b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        assert ask(http.client.HTTPConnection("localhost", port, timeout=10), "/livez")[0] == 200
        running.send_signal(signal.SIGTERM)
        said(tmp_path, "draining")
        running.send_signal(signal.SIGTERM)
        assert running.wait(5) == 0
        assert "told to end at once: 1 requests" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_two_sigterms_while_it_starts_are_no_failure(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, tmp_path) as (running, _):
        running.send_signal(signal.SIGTERM)
        time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        assert running.wait(5) == 0
