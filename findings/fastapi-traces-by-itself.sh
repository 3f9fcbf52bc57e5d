#!/bin/sh
# FastAPI 0.165.0 (opentelemetry-sdk 1.45.2): an app that says nothing of telemetry is traced all the same as soon as
# anything in its process sets OpenTelemetry's global providers, such as another library's own set-up. No instrumentation
# package is installed, no variable is set. The spans hold the query, all but five cloud signatures of it, so a key in
# `?token=` leaves the process; with a logger provider so does the message of every exception. FastAPI asks for the global
# provider at each request: it may be set after the app was made, and while it serves.
#
# Guess before running: without opentelemetry-instrumentation-fastapi there are no spans of requests.
#
# Seen:
#   nobody has set a provider: no spans
#   somebody has, meanwhile: GET /items/{id}, url.query token=s3cret&sig=REDACTED
#   an exception's message: in the log record that is exported
#   telemetry all False: no spans, no records
#
# So: an app that keeps secrets out of its traces and logs switches all of them off, and makes its own.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet fastapi==0.165.0 opentelemetry-sdk==1.45.2 httpx==0.28.1 2>/dev/null
env -u FASTAPI_OTEL_AUTO_CONFIGURE -u OTEL_SDK_DISABLED "$folder/env/bin/python" -W ignore - <<'PYTHON'
import sys

from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry import _logs, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def made(**options):
    app = FastAPI(**options)

    @app.get("/items/{id}")
    def item(id: int):
        if id == 7:
            raise ValueError("row of alice@example.org")
        return id

    client = TestClient(app, raise_server_exceptions=False)

    def ask(id):
        client.get(f"/items/{id}?token=s3cret&sig=abc")
        found = [dict(span.attributes) | {"name": span.name} for span in spans.get_finished_spans() if span.kind.name == "SERVER"]
        records = "".join(str(dict(one.log_record.attributes or {})) for one in logs.get_finished_logs())
        spans.clear(), logs.clear()
        return found, records

    return ask


spans, logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
usual, off = made(), made(telemetry=dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False))
ok = usual(1) == ([], "")
print("nobody has set a provider:", "no spans" if ok else "spans")
(tracers := TracerProvider()).add_span_processor(SimpleSpanProcessor(spans))
(loggers := LoggerProvider()).add_log_record_processor(SimpleLogRecordProcessor(logs))
trace.set_tracer_provider(tracers)
_logs.set_logger_provider(loggers)
(span,), _ = usual(1)
print(f"somebody has, meanwhile: {span['name']}, url.query {span.get('url.query')}")
ok &= (span["name"], span.get("url.query")) == ("GET /items/{id}", "token=s3cret&sig=REDACTED")
_, records = usual(7)
told = "alice@example.org" in records
print("an exception's message:", "in the log record that is exported" if told else "not exported")
quiet = off(1) == ([], "") and off(7) == ([], "")
print("telemetry all False:", "no spans, no records" if quiet else "told all the same")
sys.exit(0 if ok and told and quiet else "changed: the behaviour is not what was seen")
PYTHON
