"""Whether there are traces: what is asked for, what is refused, and what a collector that is away costs."""

import asyncio
import logging
import socket
import sys
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider

from service.settings import Settings, SettingsError
from service.tracing import setup
from service.tracing.otel import OtelTracer

ON = Settings(traces=True)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXPORTER_OTLP_ENDPOINT", "EXPORTER_OTLP_PROTOCOL", "TRACES_EXPORTER", "SDK_DISABLED"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none", ""])
def test_there_are_none_where_none_are_asked_for(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv(*variable.split("="))
    assert setup.tracer_of(ON if variable else Settings(), "1") is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", "'jaeger'; here are otlp, console and none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc'; only http/protobuf is spoken here"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "write for instance http://collector:4318"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as error:
        setup.tracer_of(ON, "1")
    assert said in str(error.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"pip install 'tessera-segmentation\[otel\]'"):
        setup.tracer_of(ON, "1")


def test_what_it_says_of_itself_is_the_operators_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    providers: list[TracerProvider] = []
    monkeypatch.setattr("service.tracing.otel.OtelTracer.__init__", lambda self, made, *_: providers.append(made))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@127.0.0.1:9")
    with caplog.at_level(logging.INFO, "tessera"):
        setup.tracer_of(ON, "1.2", "replica-7")
    assert "traces go to 127.0.0.1 port 9" in caplog.text
    assert "secret" not in caplog.text
    monkeypatch.setenv("OTEL_SERVICE_NAME", "fields")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    setup.tracer_of(ON, "1.2", "replica-7")
    first, second = [dict(one.resource.attributes) for one in providers]
    assert (first["service.name"], first["service.version"], first["service.instance.id"]) == (
        "tessera", "1.2", f"{socket.gethostname()}/replica-7",
    )  # fmt: skip
    assert (second["service.name"], second["deployment.environment.name"]) == ("fields", "test")


def test_a_collector_that_is_away_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    setup._rarely()
    setup._rarely()
    with caplog.at_level(logging.INFO, "tessera"):
        for _ in range(50):
            logging.getLogger("opentelemetry.exporter.otlp").error("Failed to export\nspans")
    ours = [record.getMessage() for record in caplog.records if record.name == "tessera"]
    assert ours == ["traces: Failed to export\\nspans"]
    assert not logging.getLogger("opentelemetry").propagate


def test_the_end_waits_a_second_for_a_collector_that_hangs_and_no_longer() -> None:
    class Hangs:
        def shutdown(self) -> None:
            time.sleep(5)

        def on_start(self, *_: object) -> None: ...
        def on_end(self, *_: object) -> None: ...

    tracer = OtelTracer(TracerProvider(shutdown_on_exit=False), [Hangs()], "1")  # type: ignore[list-item]
    began = time.monotonic()
    asyncio.run(tracer.close())
    assert 0.9 < time.monotonic() - began < 3
