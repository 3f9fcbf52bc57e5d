"""What is refused or ended on a connection before the app is asked: heads too large, slow or bad, answers not read."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from service.api.connections import Connections
from service.api.protocol import MAX_FIELDS, MAX_HEAD_BYTES, MAX_PIPELINED, bounded
from service.metrics import Metrics
from service.settings import Settings
from tests.service.fakes import free_port, wait_until

LIMIT_S = 0.3


SETTINGS = Settings(header_timeout_s=LIMIT_S, write_timeout_s=0.5, max_client_connections=20)
LARGE = bytes(20_000_000)
asked: list[str] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    """204; /read takes the body first, /large answers more than a socket holds, /slow after a while."""
    asked.append(scope["path"])
    if scope["path"] == "/read":
        while (message := await receive()).get("more_body"):
            pass
        asked.append(message["type"])
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    body = LARGE if scope["path"] == "/large" else b""
    headers = [(b"content-length", b"%d" % len(body))] if body else []
    await send({"type": "http.response.start", "status": 200 if body else 204, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Listening(uvicorn.Server):
    """uvicorn, with a look at its connections now and then."""

    def __init__(self, port: int) -> None:
        self.house = Connections(SETTINGS, Metrics())
        http = bounded(self.house, Metrics())
        super().__init__(uvicorn.Config(app, port=port, http=http, lifespan="off", log_config=None, ws="none"))

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.watching = asyncio.create_task(self.house.watch())


@pytest.fixture(scope="module")
def server() -> Iterator[Listening]:
    server = Listening(free_port())
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def port(server: Listening) -> int:
    asked.clear()
    return server.config.port


def ask(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 204")


def closed_after(connection: socket.socket) -> float:
    """Seconds until the server ends a connection on which it owes nothing."""
    began = time.monotonic()
    connection.settimeout(10)
    assert connection.recv(1000) == b""
    return time.monotonic() - began


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: he"])
def test_a_head_that_does_not_come_ends_the_connection(port: int, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head)
        assert closed_after(connection) >= 0.9 * LIMIT_S


def test_the_next_request_of_a_kept_connection_has_the_same_deadline(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        ask(connection)
        connection.sendall(b"GET / HTTP/1.1\r\nhost: he")
        assert closed_after(connection) >= 0.9 * LIMIT_S


def test_between_requests_a_connection_may_rest_longer(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        ask(connection)
        time.sleep(2 * LIMIT_S)
        ask(connection)


def test_a_kept_connection_that_sends_only_blank_lines_is_closed(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        ask(connection)
        connection.sendall(b"\r\n")
        assert closed_after(connection) >= 0.9 * LIMIT_S


def told(port: int, sent: bytes) -> bytes:
    """All that comes back of what is sent, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        received = b""
        while chunk := connection.recv(2**16):
            received += chunk
        return received


def head(*fields: bytes, target: bytes = b"/", method: bytes = b"GET") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"host: here", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


CLOSE = b"connection: close"
CHUNKED = b"transfer-encoding: chunked"


@pytest.mark.parametrize(
    "sent",
    [
        head(*[b"x: y"] * MAX_FIELDS),
        head(b"x: " + bytes(MAX_HEAD_BYTES).replace(b"\0", b"y")),
        head(b"x: y").replace(b"y", b" " * (2 * MAX_HEAD_BYTES) + b"y"),
        head(target=b"/" + b"y" * MAX_HEAD_BYTES),
        head()[:-2] + b"x: " + b"y" * (2 * MAX_HEAD_BYTES),
        b"\r\n" * MAX_HEAD_BYTES,
        head(CHUNKED, target=b"/read", method=b"POST") + b"1\r\na\r\n0\r\n" + b"x: y\r\n" * MAX_FIELDS + b"\r\n",
        head(CHUNKED, target=b"/read", method=b"POST") + b"1\r\na\r\n0\r\nx: " + b"y" * (5 * MAX_HEAD_BYTES),
        head(CHUNKED, target=b"/read", method=b"POST") + b"1;" + b"y" * (5 * MAX_HEAD_BYTES),
    ],
    ids=["fields", "field", "spaces", "target", "endless", "blank", "trailers", "trailer", "extension"],
)
def test_too_large_a_head_is_431_and_closed(port: int, sent: bytes) -> None:
    answer, _, body = told(port, sent).partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"\r\nconnection: close" in answer
    problem = json.loads(body)
    assert problem["status"] == 431
    assert f"x-request-id: {problem['request_id']}".encode() in answer
    assert "64 KiB" in problem["detail"]
    assert "http.request" not in asked


def test_the_largest_head_is_answered(port: int) -> None:
    assert told(port, head(*[b"x: y"] * (MAX_FIELDS - 2), CLOSE)).startswith(b"HTTP/1.1 204")
    assert told(port, head(b"x: " + b"y" * (MAX_HEAD_BYTES - 200), CLOSE)).startswith(b"HTTP/1.1 204")


def test_a_body_is_not_counted_as_a_head(port: int) -> None:
    body = b"y" * (8 * MAX_HEAD_BYTES)
    sent = head(b"content-length: %d" % len(body), target=b"/read", method=b"POST") + body + head(CLOSE)
    assert told(port, sent).count(b"HTTP/1.1 204") == 2


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", head(b"content-length: -1"), head(b"a b: c"), b"\x16\x03\x01\x02"],
)
def test_what_is_no_http_is_400_with_an_id(port: int, sent: bytes) -> None:
    answer, _, body = told(port, sent).partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert json.loads(body)["request_id"]
    assert not asked


def test_a_body_that_cannot_be_read_is_told_and_its_app_let_go(port: int) -> None:
    answer = told(port, head(CHUNKED, target=b"/read", method=b"POST") + b"zz\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    wait_until(lambda: asked == ["/read", "http.disconnect"])


def test_an_earlier_request_is_answered_before_a_malformed_one_ends_the_connection(port: int) -> None:
    received = told(port, head(target=b"/slow") + b"nonsense\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 204 ")
    assert b"connection: close" in received


def test_requests_at_once_are_answered_in_order_and_not_without_end(port: int) -> None:
    assert told(port, head() * 10 + head(CLOSE)).count(b"HTTP/1.1 204") == 11
    assert told(port, head() * (4 * MAX_PIPELINED)).count(b"HTTP/1.1 204") == MAX_PIPELINED + 1


def test_an_upgrade_that_is_not_done_is_answered_as_it_is_and_closed(port: int) -> None:
    upgrade = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk")
    sent = head(*upgrade, b"content-length: 3", target=b"/read", method=b"POST") + b"abc"
    assert told(port, sent).startswith(b"HTTP/1.1 204 ")
    assert asked == ["/read", "http.request"]


def test_a_client_that_reads_nothing_gets_no_second_answer_and_is_closed(server: Listening, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head(target=b"/large") * 5)
        wait_until(lambda: server.house.unread > 0)
        assert asked == ["/large"]
        wait_until(lambda: server.house.unread == 0)
        assert asked == ["/large"]
        size = 0
        with suppress(ConnectionError):
            while chunk := connection.recv(2**20):
                size += len(chunk)
        assert size < len(LARGE)


def test_a_client_that_reads_slowly_gets_all_of_it(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head(target=b"/large") + head(CLOSE))
        size, began = 0, time.monotonic()
        while chunk := connection.recv(2**19):
            size += len(chunk)
            if time.monotonic() - began < 3 * SETTINGS.write_timeout_s:
                time.sleep(0.05)
    assert size > len(LARGE)
    assert asked == ["/large", "/"]


def test_a_connection_beyond_the_limit_may_ask_for_probes(server: Listening, port: int) -> None:
    waiting = head(b"content-length: 9", target=b"/read", method=b"POST")
    busy = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(20)]
    try:
        for connection in busy:
            connection.sendall(waiting)
        wait_until(lambda: asked.count("/read") == 20)
        assert told(port, head(target=b"/livez")).startswith(b"HTTP/1.1 204 ")
        answer, _, body = told(port, head(target=b"/clusters")).partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in answer
        assert json.loads(body)["request_id"]
        assert "/clusters" not in asked
    finally:
        for connection in busy:
            connection.close()
    wait_until(lambda: len(server.house) == 0)
