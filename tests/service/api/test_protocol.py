"""Request heads have a deadline, on a connection's first request and on every later one."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from service.api.protocol import within
from tests.service.fakes import free_port, wait_until

LIMIT_S = 0.3


async def empty(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    config = uvicorn.Config(empty, port=port, http=within(LIMIT_S), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield port
    server.should_exit = True
    thread.join(10)


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
