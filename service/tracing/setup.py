"""Whether there are traces, and where they go: TESSERA_TRACES says the first, OpenTelemetry's own variables the rest.

Knows nothing of requests.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from models.extras import brings
from service.errors import printable, quoted
from service.request_context import current
from service.settings import Settings, SettingsError
from service.tracing.traces import Tracer

log = logging.getLogger("tessera")

_OFTEN_S = 60.0
_COLLECTOR = "http://localhost:4318"
_PROTOCOL = "http/protobuf"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTERS = ("otlp", "console", "none")


def tracer_of(settings: Settings, version: str, member: str = "") -> Tracer | None:
    """What keeps the traces of this process; None where there are none.

    member  this server's name among those under its address

    Raises SettingsError for variables that cannot be used, and where the extra `otel` is not installed.
    """
    if not settings.traces or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()] or ["otlp"]
    if unknown := next((name for name in names if name not in _EXPORTERS), None):
        raise SettingsError(f"OTEL_TRACES_EXPORTER: {quoted(unknown)}; here are otlp, console and none")
    wanted = [name for name in dict.fromkeys(names) if name != "none"]
    if not wanted:
        return None
    if "otlp" in wanted:
        _check_otlp()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

        from service.tracing.otel import OtelTracer
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"TESSERA_TRACES: the package {error.name!r} is not installed here: {brings('otel')}"
        ) from None
    except ValueError as error:
        raise SettingsError(f"OTEL_PROPAGATORS: {error}") from None
    _rarely()
    instance = f"{socket.gethostname()}/{member or os.getpid()}"
    ours = {"service.name": "tessera", "service.version": version, "service.instance.id": instance}
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    exporters: dict[str, Callable[[], SpanExporter]] = {
        "otlp": OTLPSpanExporter,
        "console": lambda: ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + os.linesep),
    }
    processors = [BatchSpanProcessor(exporters[name]()) for name in wanted]
    # At the interpreter's own end nobody waits half a minute for a collector: the server says when all is over.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    collector = urlsplit(next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), _COLLECTOR))
    where = {"otlp": f"{collector.hostname} port {collector.port}" if collector.port else collector.hostname}
    log.info("traces go to %s", " and ".join(str(where.get(name, "stdout")) for name in wanted))
    return OtelTracer(provider, processors, version)


def outgoing_headers() -> dict[str, str]:
    """What tells another server in whose trace it is asked; nothing where there are no traces."""
    requests = current.get()
    if len(requests) != 1 or requests[0].span is None:
        return {}
    from service.tracing.otel import headers_of

    return headers_of(requests[0].span)


def _check_otlp() -> None:
    for name in _PROTOCOLS:
        if (protocol := os.environ.get(name, _PROTOCOL)) not in ("", _PROTOCOL):
            raise SettingsError(f"{name}: {quoted(protocol)}; only {_PROTOCOL} is spoken here, mostly on port 4318")
    for name in _ENDPOINTS:
        if (endpoint := os.environ.get(name)) and not endpoint.startswith(("http://", "https://")):
            raise SettingsError(f"{name}: {quoted(endpoint)}; write for instance http://collector:4318")


def _rarely() -> None:
    """A collector that is away is told once a minute, however often it is tried."""
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Rarely) for handler in logger.handlers):
        logger.addHandler(_Rarely(logging.WARNING))
        logger.propagate = False


class _Rarely(logging.Handler):
    told_at = -_OFTEN_S

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the first of a minute."""
        if (now := time.monotonic()) - self.told_at >= _OFTEN_S:
            self.told_at = now
            log.log(record.levelno, "traces: %s", printable(record.getMessage()[:300]))
