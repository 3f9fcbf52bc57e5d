"""HTTP/1.1 on one connection, bounded before the app is asked: uvicorn's protocol with limits of its own.

A head has so many bytes and fields and so much time to come, an answer so much time to be read; what is refused here
has a problem document and an id like everything else. While a client has not read its answers its next request waits.

Knows nothing of routes; bodies have their own limits (`body.py`).
"""

import json
import logging
import time
import uuid
from collections.abc import Sized
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.connections import PROGRESS, Connections
from service.api.error_shapes import shape_of
from service.api.problems import plain
from service.api.security_headers import security_headers
from service.errors import printable
from service.metrics import Metrics

log = logging.getLogger("tessera")

MAX_HEAD_BYTES = 2**16  # request line and header fields
MAX_FIELDS = 128
MAX_PIPELINED = 64  # requests sent before the first is answered
# For connections beyond the limit.
PROBES = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/health"})
_LINGER_S, _LINGER_BYTES = 2.0, 2**20  # after a refusal: closing on unread bytes may take the answer with it
_TOO_LARGE = (
    f"the request's line and headers are limited to {MAX_HEAD_BYTES // 1024} KiB and {MAX_FIELDS} fields; send fewer"
    " or shorter ones"
)
_OVER = "there are more connections than the server holds (TESSERA_MAX_CONNECTIONS, TESSERA_MAX_CLIENT_CONNECTIONS)"


def bounded(connections: Connections, metrics: Metrics) -> type["BoundedProtocol"]:
    """The protocol of one server's connections."""
    return type("BoundedProtocol", (BoundedProtocol,), {"_house": connections, "_metrics": metrics})


class BoundedProtocol(HttpToolsProtocol):
    """One connection; `Connection` says what it tells the others."""

    _house: ClassVar[Connections]
    _metrics: ClassVar[Metrics]
    address: str | None = None
    deadline = 0.0
    over = False
    fresh = True
    _in_head = True
    _begun = False  # a head, and is not at its end
    _heads = 0  # that were read to their end
    _head_bytes = 0  # of it, with blank lines before it
    _head_size = 0  # of its parts that are known
    _rest_bytes = 0  # since the latest of a body's: chunk extensions, trailers
    _limit_passed = False
    _ending = False  # once what is under way is answered
    _refused = False
    _discarded = 0
    _unread_mark = 0
    _waiting = False  # the next request, for its client to read the last answer

    # What comes

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._house.enter(self, self.client[0] if self.client else None)

    def data_received(self, data: bytes) -> None:
        if self._refused or self._ending:
            self._discard(len(data))
            return
        left = memoryview(data)
        while left and not (self._refused or self._ending):
            in_head, heads, piece = self._in_head, self._heads, left
            if in_head:
                if not self._head_bytes and self.cycle is not None and self._answered:  # the next head begins
                    self.deadline = min(self.deadline, time.monotonic() + self._house.header_timeout_s)
                piece = left[: MAX_HEAD_BYTES - self._head_bytes]
            else:
                self._rest_bytes += len(piece)
            self._feed(piece)
            left = left[len(piece) :]
            if in_head and self._heads == heads:
                self._head_bytes += len(piece)
                self._limit_passed |= self._head_bytes >= MAX_HEAD_BYTES
            self._limit_passed |= self._rest_bytes > 2 * MAX_HEAD_BYTES
            if self._limit_passed and not self._refused:
                self._refuse_head()

    def _feed(self, piece: memoryview) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserError as error:
            if self._limit_passed:
                self._refuse_head()
            elif not self._ending:
                self._refuse(400, f"this is not HTTP/1.1 ({_words(error)}); the connection is closed", "malformed")
        except httptools.HttpParserUpgrade:  # nothing is upgraded to: the request is answered as it is
            self._end_after_answers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._begun = True
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_FIELDS:
            self._limit_passed = True
            raise ValueError("too many header fields")
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = self._begun = False
        self._heads += 1
        self._head_bytes = self._rest_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            self._end_after_answers()
            raise ValueError("too many requests at once")
        self._house.work(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._rest_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD_BYTES:
            self._limit_passed = True
            raise ValueError("too large a head")

    # What goes

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.over and cycle.scope["path"].removeprefix(self.root_path) not in PROBES:
            app = _refuse_over
        if self.flow.write_paused:  # the client has not read what it was sent before
            self.pipeline.append((cycle, app))
            self._waiting = True
            self.flow.pause_reading()
            return
        if self.over:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._stall()  # until the rest of it is read
            return
        if self.pipeline:
            self._next()
            return
        self.flow.resume_reading()
        if self._ending:
            self.transport.close()
            self._stall()
        elif not self.flow.write_paused:
            self._rest()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._house.flow(self)
        if self._answered and not self.pipeline:
            self._rest()
            return
        self._house.work(self)
        if self._waiting:
            self._next()

    def _next(self) -> None:
        """Begin with what was sent first of what waits."""
        cycle, app = self.pipeline.pop()
        self._waiting = False
        self.flow.resume_reading()  # where nothing more waits
        self._start_asgi_task(cycle, app)

    def _stall(self) -> None:
        self._unread_mark = self.unread
        self._house.stall(self)

    def _rest(self) -> None:
        """Until the next request; shorter where one has begun, or the last one has not ended."""
        between = self._in_head and not self._begun and not self._head_bytes
        self._house.rest(self, self._house.keep_alive_s if between else self._house.header_timeout_s)

    # How it ends

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.leave(self)
        self.pipeline.clear()
        super().connection_lost(exc)

    @property
    def unread(self) -> int:
        """Bytes that wait in this process for the client to take them."""
        return int(self.transport.get_write_buffer_size())

    def expire(self, now: float) -> None:
        """Closed, unless the client is slow but reads."""
        unread = self.unread
        if unread and unread <= self._unread_mark - PROGRESS:
            self._unread_mark = unread
            self.deadline = now + self._house.write_timeout_s
        else:
            self.end("unread" if unread else "idle")

    def end(self, reason: str) -> None:
        """Closed now; what is unsent is lost."""
        if reason != "idle":
            self._metrics.refused.labels(reason).inc()
        self._house.leave(self)
        if self.unread:
            self.transport.abort()
        else:
            self.transport.close()

    @property
    def _answered(self) -> bool:
        """Nothing that was asked is without its answer."""
        return self.cycle is None or self.cycle.response_complete

    def _refuse_head(self) -> None:
        self._refuse(431, _TOO_LARGE, "head_too_large")

    def _refuse(self, status: int, detail: str, reason: str) -> None:
        """Answer what cannot be given to the app, where an answer has its place, and close."""
        cycle = self.cycle
        if not self._answered and not (cycle.more_body and not cycle.response_started):
            self._end_after_answers()  # an earlier request is being answered
            return
        if not self._answered:  # its body is what cannot be read
            cycle.disconnected = True
            cycle.message_event.set()
        path = "" if self._answered else cycle.scope["path"].removeprefix(self.root_path)
        headers, body, request_id = _problem(status, detail, path)
        lines = b"".join(b"%s: %s\r\n" % pair for pair in [*self.server_state.default_headers, *headers])
        self.transport.write(b"".join((STATUS_LINE[status], lines, b"\r\n", body)))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._refused = True
        self._house.rest(self, _LINGER_S)
        self._metrics.refused.labels(reason).inc()
        self._house.tell(f"{self.address or 'a client'}: {status}, {detail}, {request_id}")

    def _end_after_answers(self) -> None:
        """Nothing more is read; what was asked is answered, and then the connection is closed."""
        self._ending = True
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        if last is not None:
            last.keep_alive = False
        if self._answered and not self.pipeline:
            self.transport.close()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > _LINGER_BYTES:
            self.transport.abort() if self._refused else self.transport.pause_reading()


class _Flow(FlowControl):
    """uvicorn's, that reads nothing more while requests wait: an app that listens for its client would let them in."""

    def __init__(self, transport: Any, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Unless requests wait."""
        if not self._pipeline:
            super().resume_reading()


async def _refuse_over(scope: Any, receive: Any, send: Any) -> None:
    """503 for a connection that came when there was no room."""
    headers, body, _ = _problem(503, _OVER, scope["path"].removeprefix(scope["root_path"]))
    await send({"type": "http.response.start", "status": 503, "headers": [*headers, (b"retry-after", b"5")]})
    await send({"type": "http.response.body", "body": body})


def _problem(status: int, detail: str, path: str) -> tuple[list[tuple[bytes, bytes]], bytes, str]:
    """Headers, body and id of a problem after which the connection is closed; in the shape of a path, "" for none."""
    request_id = uuid.uuid4().hex
    shape = shape_of(path)
    body = json.dumps(shape.render(plain(status, detail, request_id))).encode()
    headers = [
        (b"content-type", shape.media_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
        *security_headers(tls=False, loopback=False),
    ]
    return headers, body, request_id


def _words(error: Exception) -> str:
    """What the parser says, or what it met inside."""
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    text = str(cause or error) or type(error).__name__
    return printable(text[:100])
