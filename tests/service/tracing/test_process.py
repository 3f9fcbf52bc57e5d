"""A server in a process of its own, and a collector: what arrives there, and what a collector cannot delay."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.answers import PNG
from tests.service.collector import Collector, tree
from tests.service.fakes import free_port, wait_until
from tests.service.process import ROOT, command, process
from tests.service.server import proved

pytestmark = pytest.mark.slow
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER = 2  # SpanKind in OTLP


def on(collector: str, **more: str) -> dict[str, str]:
    return {"TESSERA_LOG": "json", "TESSERA_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector, **more}


def ended(running: subprocess.Popen[str]) -> tuple[float, list[dict[str, Any]]]:
    """Seconds from SIGTERM to the end, and the log."""
    told = time.monotonic()
    running.send_signal(signal.SIGTERM)
    _, log = running.communicate(timeout=20)
    took = time.monotonic() - told
    assert running.returncode == 0, log
    return took, [json.loads(line) for line in log.splitlines()]


def segment(port: int, **headers: str) -> httpx.Response:
    return httpx.post(f"http://localhost:{port}/segment?crf=fast&format=png", content=PNG, headers=headers, timeout=20)


def test_a_trace_goes_on_here_and_its_last_spans_arrive_at_the_end(tiny_bundle: Path, tmp_path: Path) -> None:
    """The exporter would wait a minute: what arrives is what the end has flushed."""
    with Collector().running() as collector:
        settings = on(collector.url, OTEL_BSP_SCHEDULE_DELAY="60000", OTEL_EXPORTER_OTLP_HEADERS="x-tenant=fields")
        with process(tiny_bundle, tmp_path, **settings) as (running, port):
            answer = segment(port, traceparent=f"00-{TRACE}-{CALLER}-01", tracestate="theirs=1")
            assert answer.status_code == 200
            assert not collector.spans
            took, log = ended(running)
        assert took < 3
    spans = collector.of(TRACE)
    (server,) = [span for span in spans if span.kind == SERVER]
    assert (server.name, server.parent) == ("POST /segment", CALLER)
    assert collector.headers[0]["x-tenant"] == "fields"
    assert collector.headers[0]["path"] == "/v1/traces"
    assert server.resource["service.name"] == "tessera"
    stages = [span for span in spans if span is not server]
    assert {span.parent for span in stages} == {server.id}
    assert {span.name for span in stages} >= {"receive", "decode", "queue", "encoder", "assign", "crf", "encode"}
    assert sum(span.ms for span in stages) <= server.ms
    assert tree(spans).startswith("POST /segment ")
    line = next(line for line in log if line.get("path") == "/segment")
    assert (line["request_id"], line["trace_id"], line["span_id"]) == (TRACE, TRACE, server.id)
    assert log[-1]["message"] == "ended"


@pytest.mark.parametrize("kind", ["refuses", "hangs", "takes no connection"])
def test_a_collector_that_is_away_costs_a_line_and_no_time(tiny_bundle: Path, tmp_path: Path, kind: str) -> None:
    with socket.socket() as full, Collector(delay_s=30).running() as hanging:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fill = [socket.socket() for _ in range(4)]  # its queue: who comes now waits for an answer to its SYN
        for one in fill:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        where = {
            "refuses": f"http://127.0.0.1:{free_port()}",
            "hangs": hanging.url,
            "takes no connection": f"http://127.0.0.1:{full.getsockname()[1]}",
        }[kind]
        settings = on(
            where, OTEL_BSP_SCHEDULE_DELAY="50", OTEL_BSP_MAX_QUEUE_SIZE="64", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8"
        )
        with process(tiny_bundle, tmp_path, **settings) as (running, port):
            with httpx.Client(base_url=f"http://localhost:{port}", timeout=20) as client:
                began = time.monotonic()
                for _ in range(100):  # ten times what the exporter may keep
                    assert client.post("/segment?format=png", content=PNG).status_code == 200
                assert time.monotonic() - began < 10
            time.sleep(1)
            took, log = ended(running)
        for one in fill:
            one.close()
    assert took < 3
    assert log[-1]["message"] == "ended"
    about = [line for line in log if line["message"].startswith("traces: ")]
    assert len(about) <= 1
    assert about or kind != "refuses"


def test_every_line_is_json_also_of_a_start_that_fails_and_of_the_parent(tiny_bundle: Path, tmp_path: Path) -> None:
    def told(*arguments: str, **environment: str) -> tuple[int, list[dict[str, Any]]]:
        ran = subprocess.run(
            command("--port", str(free_port()), *arguments),
            cwd=ROOT,
            env={**os.environ, "TESSERA_STATE": str(tmp_path), "TESSERA_LOG": "json", **environment},
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        return ran.returncode, [json.loads(line) for line in ran.stderr.splitlines()]

    code, (line,) = told(TESSERA_MAX_MPX="many")
    assert (code, line["level"]) == (2, "CRITICAL")
    assert "TESSERA_MAX_MPX" in line["message"]
    code, (line,) = told(TESSERA_TRACES="true", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert (code, "http/protobuf" in line["message"]) == (2, True)
    code, (line,) = told("--bundle", str(tmp_path / "nothing"))
    assert (code, "is no bundle folder" in line["message"]) == (2, True)
    (damaged := tmp_path / "damaged").mkdir()
    (damaged / "manifest.json").write_text("{}")
    supervised = subprocess.Popen(
        command("--bundle", str(damaged), "--port", str(free_port()), "--supervise"),
        cwd=ROOT,
        env={**os.environ, "TESSERA_STATE": str(tmp_path), "TESSERA_LOG": "json"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert supervised.stderr is not None
        lines: list[dict[str, Any]] = []
        while not lines or lines[-1]["logger"] != "supervisor":
            lines.append(json.loads(supervised.stderr.readline()))
    finally:
        supervised.terminate()
        supervised.communicate(timeout=20)
    assert {line["logger"] for line in lines} == {"tessera", "supervisor"}
    assert "it is started again in 1 s" in lines[-1]["message"]
    assert abs(datetime.fromisoformat(lines[-1]["time"]).timestamp() - time.time()) < 30


def test_traces_to_the_console_are_json_on_stdout(tiny_bundle: Path, tmp_path: Path) -> None:
    wanted = {
        "TESSERA_TRACES": "1",
        "OTEL_TRACES_EXPORTER": "console",
        "TESSERA_STATE": str(proved(tiny_bundle, tmp_path)),
    }
    port = free_port()
    running = subprocess.Popen(
        command("--bundle", str(tiny_bundle), "--port", str(port)),
        cwd=ROOT,
        env={**os.environ, **wanted},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until(lambda: _ready(port))
        segment(port)
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=20)
    finally:
        running.kill()
        running.communicate()
    names = [json.loads(line)["name"] for line in out.splitlines()]
    assert names[-1] == "POST /segment"
    assert "encoder" in names


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://localhost:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_server_without_traces_imports_nothing_of_them(tmp_path: Path) -> None:
    code = "import sys, service.app; assert not {'opentelemetry.sdk', 'requests'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
