"""Traces by OpenTelemetry's SDK.

A request's span is begun with it; those of its stages are made once it is answered, of times that were taken anyway,
so that nothing here runs while an image is worked on. Imported only where traces are on.

Knows nothing of settings, of routes, of images.
"""

import asyncio
import time
from collections.abc import Sequence

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode
from starlette.datastructures import Headers

from service.scheduling.background import in_thread
from service.scheduling.batcher import Batch
from service.timings import Span
from service.tracing.traces import Attributes, ImageTrace

_FLUSH_S = 1.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_NETWORK = "encoder"  # the stage that others may share


class OtelTracer:
    """Spans of one server's requests, and of images that no request waits for (`traces.Tracer`)."""

    def __init__(self, provider: TracerProvider, processors: Sequence[SpanProcessor], version: str) -> None:
        for processor in processors:
            provider.add_span_processor(processor)
        self._processors = processors
        self._tracer = provider.get_tracer("tessera", version)

    def request(self, method: str, headers: Headers, started: float, attributes: Attributes) -> "OtelRequest":
        """A request that began at a moment of time.perf_counter(), whose trace its headers may name."""
        return OtelRequest(self._tracer, method, headers, started, attributes)

    def image(self, name: str, image: ImageTrace) -> None:
        """An image that no request waited for is done: a trace of its own."""
        if image.spans:
            _image(self._tracer, Context(), name, image, _epoch_ns(), image.attributes)

    async def close(self) -> None:
        """What is not delivered yet is, within a second."""
        await asyncio.wait([in_thread(p.shutdown, "the last traces") for p in self._processors], timeout=_FLUSH_S)


class OtelRequest:
    """The span of a request, the current one while it is answered (`traces.RequestTrace`)."""

    def __init__(
        self, tracer: trace.Tracer, method: str, headers: Headers, started: float, attributes: Attributes
    ) -> None:
        known = method if method in _METHODS else "_OTHER"
        self._tracer, self._method = tracer, known if known == method else "HTTP"
        self._epoch_ns = _epoch_ns()
        caller = propagate.extract(headers, Context(), _GETTER)  # never what else is current here
        self._span = tracer.start_span(
            self._method,
            caller,
            SpanKind.SERVER,
            {"http.request.method": known, **attributes},
            start_time=self._epoch_ns + round(started * 1e9),
        )
        self.span = self._span.get_span_context()
        self.id = trace.format_trace_id(self.span.trace_id)
        self.attributes: dict[str, str | int | float | bool] = {}
        self.images: list[ImageTrace] = []
        self._spans: list[Span] = []
        self._token = context.attach(trace.set_span_in_context(self._span, Context()))

    def note(self, name: str, start: float, end: float) -> None:
        """Something of it took from one moment to another, of time.perf_counter()."""
        self._spans.append(Span(name, start, end))

    def end(self, route: str | None, status: int | None, error: str = "") -> None:
        """It is answered, or its client has left: then there is no status."""
        context.detach(self._token)
        if not self._span.is_recording():
            return
        ended_ns = time.time_ns()
        self._span.set_attributes(self.attributes)
        if route is not None:
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if status is None or status >= 500:
            self._span.set_attribute("error.type", error or str(status))
        if status is not None and status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        here = trace.set_span_in_context(self._span, Context())
        for span in self._spans:
            _child(self._tracer, here, span, self._epoch_ns)
        if len(self.images) == 1:
            self._span.set_attributes(self.images[0].attributes)
            _stages(self._tracer, here, self.images[0], self._epoch_ns)
        else:
            for number, image in enumerate(self.images):
                if image.spans:
                    told = {**image.attributes, "tessera.image.index": number}
                    _image(self._tracer, here, "image", image, self._epoch_ns, told)
        self._span.end(ended_ns)


def headers_of(span: SpanContext) -> dict[str, str]:
    """What tells another server of a span: traceparent, tracestate."""
    headers: dict[str, str] = {}
    propagate.inject(headers, trace.set_span_in_context(NonRecordingSpan(span), Context()))
    return headers


class _Getter(Getter[Headers]):
    def get(self, carrier: Headers, key: str) -> list[str] | None:
        return carrier.getlist(key) or None

    def keys(self, carrier: Headers) -> list[str]:
        return carrier.keys()


_GETTER = _Getter()


def _epoch_ns() -> int:
    """When time.perf_counter() was 0."""
    return time.time_ns() - time.perf_counter_ns()


def _image(
    tracer: trace.Tracer, parent: Context, name: str, image: ImageTrace, epoch_ns: int, attributes: Attributes
) -> None:
    """The span of one image of several, from the beginning of its first stage to the end of its last."""
    first = min(span.start for span in image.spans)
    span = tracer.start_span(name, parent, attributes=attributes, start_time=epoch_ns + round(first * 1e9))
    if image.error:
        span.set_attribute("error.type", image.error)
        span.set_status(Status(StatusCode.ERROR))
    if span.is_recording():
        _stages(tracer, trace.set_span_in_context(span, Context()), image, epoch_ns)
    span.end(epoch_ns + round(max(span.end for span in image.spans) * 1e9))


def _stages(tracer: trace.Tracer, parent: Context, image: ImageTrace, epoch_ns: int) -> None:
    for span in image.spans:
        _child(tracer, parent, span, epoch_ns, image.batch if span.name == _NETWORK else None)


def _child(tracer: trace.Tracer, parent: Context, span: Span, epoch_ns: int, batch: Batch | None = None) -> None:
    """A span that is over. One run of the network for several requests is linked to the others'."""
    own = trace.get_current_span(parent).get_span_context().trace_id
    others = [request.span for request in batch.requests if request.span is not None] if batch else []
    child = tracer.start_span(
        span.name,
        parent,
        attributes={"tessera.batch.size": batch.size} if batch else None,
        links=[Link(other) for other in others if other.trace_id != own and other.trace_flags.sampled],
        start_time=epoch_ns + round(span.start * 1e9),
    )
    child.end(epoch_ns + round(span.end * 1e9))
