"""A server that says what a test wrote down for it, one answer after the other, and then breaks its connections."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Reply = bytes | Callable[[socket.socket], None]


@dataclass
class Scripted:
    """What it was asked. `requests` are heads with their bodies; `connections` counts those that were opened."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    connections: int = 0


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *lines])
    return head.encode() + b"\r\n\r\n" + body


def busy(retry_after: str = "0") -> bytes:
    body = b'{"type":"urn:tessera:busy","title":"Busy","status":503,"detail":"full","request_id":"r1"}'
    return answer(
        "503 Service Unavailable",
        body,
        retry_after=retry_after,
        content_type="application/problem+json",
        x_request_id="r1",
    )


def drop(connection: socket.socket) -> None:
    """The connection ends without an answer."""


def half(connection: socket.socket) -> None:
    """The connection ends within an answer."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")


def drip(connection: socket.socket) -> None:
    """A byte at a time, without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    with suppress(OSError):
        for _ in range(1000):
            connection.sendall(b" ")
            time.sleep(0.01)


@contextmanager
def scripted(replies: Sequence[Reply]) -> Iterator[Scripted]:
    script = list(replies)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = Scripted(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError), connection.makefile("rb") as stream:
                while request := _request(stream):
                    told.requests.append(request)
                    told.times.append(time.monotonic())
                    reply = script.pop(0)
                    if callable(reply):
                        reply(connection)
                        return
                    connection.sendall(reply)

        def listen() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    told.connections += 1
                    threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                    threads[-1].start()

        threads = [threading.Thread(target=listen, daemon=True)]
        threads[0].start()
        yield told
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


def _request(stream: object) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()  # type: ignore[attr-defined]
        if not line:
            return b""
        head += line
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    body: bytes = stream.read(int(lengths[0].split(b":")[1])) if lengths else b""  # type: ignore[attr-defined]
    return head + body
