"""A collector of traces on loopback: OTLP over HTTP, read with OpenTelemetry's own protobuf classes.

python -m tests.service.collector [PORT]    prints every trace as a tree, once no more of it comes
"""

import gzip
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_QUIET_S = 1.0


@dataclass(frozen=True)
class Span:
    """As it came. Times in nanoseconds since 1970."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start: int
    end: int
    status: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    resource: dict[str, Any] = field(repr=False)

    @property
    def ms(self) -> float:
        return (self.end - self.start) / 1e6


class Collector:
    """delay_s  before each answer: one that hangs."""

    def __init__(self, port: int = 0, delay_s: float = 0.0) -> None:
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self.came = time.monotonic()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(delay_s)
                collector.headers.append({**{k.lower(): v for k, v in self.headers.items()}, "path": self.path})
                collector.spans += spans(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
                collector.came = time.monotonic()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["Collector"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]


def spans(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.kind,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code,
            _dict(span.attributes),
            tuple(link.trace_id.hex() for link in span.links),
            _dict(of_resource.resource.attributes),
        )
        for of_resource in request.resource_spans
        for scope in of_resource.scope_spans
        for span in scope.spans
    ]


def tree(of_one_trace: Sequence[Span]) -> str:
    """A trace as text: when each span began, how long it took, what it tells."""
    ids = {span.id for span in of_one_trace}
    roots = [span for span in of_one_trace if span.parent not in ids]
    began = min(span.start for span in of_one_trace)
    lines: list[str] = []

    def write(span: Span, depth: int) -> None:
        shown = {name.removeprefix("tessera."): value for name, value in span.attributes.items() if _shown(name)}
        told = " ".join(f"{name}={value}" for name, value in shown.items())
        links = f" ↔ {', '.join(link[:8] for link in span.links)}" if span.links else ""
        name = "  " * depth + span.name
        lines.append(f"{name:24} {(span.start - began) / 1e6:8.2f} {span.ms:8.2f} ms  {told}{links}".rstrip())
        for child in sorted((one for one in of_one_trace if one.parent == span.id), key=lambda one: one.start):
            write(child, depth + 1)

    for root in roots:
        write(root, 0)
    return "\n".join(lines)


def _shown(attribute: str) -> bool:
    own = attribute.startswith("tessera.") and attribute != "tessera.request_id"
    return own or attribute in ("error.type", "http.response.status_code")


def _dict(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def main() -> None:
    with Collector(int(sys.argv[1]) if len(sys.argv) > 1 else 4318).running() as collector:
        print(f"traces are taken at {collector.url}", flush=True)
        while True:
            time.sleep(0.2)
            if collector.spans and time.monotonic() - collector.came > _QUIET_S:
                taken, collector.spans = collector.spans, []
                for trace in dict.fromkeys(span.trace for span in taken):
                    print(f"\ntrace {trace}\n{tree([span for span in taken if span.trace == trace])}", flush=True)


if __name__ == "__main__":
    main()
