"""Spans of a request: whose they are, what they tell, and that they are what was measured."""

import asyncio
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from models.io.encode import encode
from service import app
from service.api.protocols.label_studio.fetching import LabelStudioFiles
from service.request_context import RequestContext, current
from service.scheduling.batcher import Batch
from service.timings import STAGES, Span
from service.tracing.otel import OtelTracer
from service.tracing.traces import ImageTrace
from tessera.client import Client
from tests.service.answers import B64, PNG, TEXT
from tests.service.fakes import Slow, picture, wait_until
from tests.service.jobs_of import ZIP, begun, settled
from tests.service.server import server_of

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "theirs=1"}
EXPORTED = InMemorySpanExporter()
TRACER = OtelTracer(TracerProvider(shutdown_on_exit=False), [SimpleSpanProcessor(EXPORTED)], "1")


@pytest.fixture(scope="module")
def traced(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "tracer_of", lambda *_: TRACER)
        with server_of(tiny_bundle, tmp_path_factory.mktemp("state"))(keys="alice=secret") as client:
            client.headers["x-api-key"] = "secret"
            yield client


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    EXPORTED.clear()


def exported() -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The server's span, and the others from the first that began."""
    spans = sorted(EXPORTED.get_finished_spans(), key=lambda span: span.start_time or 0)
    (server,) = [span for span in spans if span.kind is SpanKind.SERVER]
    return server, [span for span in spans if span is not server]


def ms(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e6


def told(headers: httpx.Headers) -> dict[str, float]:
    """Server-Timing."""
    parts = (part.split(";dur=") for part in headers["server-timing"].split(", "))
    return {name: float(number) for name, number in parts}


def test_a_request_is_one_span_of_the_callers_trace_with_its_stages_below(traced: TestClient) -> None:
    answer = traced.post("/segment?k=3&crf=fast&format=png&timeout_ms=9999", content=PNG, headers=PARENT)
    server, stages = exported()
    assert server.name == "POST /segment"
    assert server.parent is not None
    assert (f"{server.parent.trace_id:032x}", f"{server.parent.span_id:016x}") == (TRACE, CALLER)
    assert server.parent.trace_state["theirs"] == "1"
    assert server.status.status_code is StatusCode.UNSET
    attributes = dict(server.attributes or {})
    assert attributes.pop("server.address")
    attributes.pop("server.port")
    assert attributes.pop("tessera.model") == answer.headers["x-model"]
    assert attributes == {
        "http.request.method": "POST", "http.response.status_code": 200, "http.route": "/segment",
        "url.path": "/segment", "url.scheme": "http", "network.protocol.version": "1.1",
        "tessera.key": "alice", "tessera.request_id": TRACE, "tessera.k": 3, "tessera.crf": "fast",
        "tessera.format": "png", "tessera.image.height": 60, "tessera.image.width": 100, "tessera.cache.hit": False,
    }  # fmt: skip
    assert answer.headers["x-request-id"] == TRACE
    for span in stages:
        assert span.parent == server.context
        assert span.kind is SpanKind.INTERNAL
        assert (server.start_time or 0) <= (span.start_time or 0) <= (span.end_time or 0) <= (server.end_time or 0)
    sums = {stage: sum(ms(span) for span in stages if span.name == stage) for stage in STAGES}
    assert sums == pytest.approx({stage: told(answer.headers)[stage] for stage in STAGES}, abs=0.02)
    assert all(sums.values())
    assert ms(server) >= told(answer.headers)["total"] - 0.02


def test_what_no_caller_traces_has_a_trace_whose_id_is_the_requests(traced: TestClient) -> None:
    answer = traced.get("/clusters")
    server, stages = exported()
    assert server.parent is None
    assert f"{server.context.trace_id:032x}" == answer.headers["x-request-id"]
    assert (server.name, stages) == ("GET /clusters", [])


def test_the_same_image_again_has_no_network_in_its_trace(traced: TestClient) -> None:
    image = encode(picture(7, 40), "png")
    traced.post("/segment", content=image)
    EXPORTED.clear()
    traced.post("/segment?k=2", content=image)
    server, stages = exported()
    assert (server.attributes or {})["tessera.cache.hit"] is True
    assert {span.name for span in stages} - {"wait"} == {"receive", "assign", "encode"}


def test_several_images_have_a_span_each_and_one_that_failed_says_so(traced: TestClient) -> None:
    images = [encode(picture(i, 40), "png") for i in (91, 92)]
    traced.post("/segment", files=[("image", (f"{i}", data)) for i, data in enumerate([*images, TEXT])])
    server, spans = exported()
    found = {(span.attributes or {})["tessera.image.index"]: span for span in spans if span.name == "image"}
    assert found.keys() == {0, 1, 2}
    assert all(span.parent == server.context for span in found.values())
    assert (found[2].attributes or {})["error.type"] == "ImageError"
    assert found[2].status.status_code is StatusCode.ERROR
    for span in (found[0], found[1]):
        inside = [child for child in spans if child.parent == span.context]
        assert {child.name for child in inside} >= {"decode", "queue", "encoder", "assign", "encode"}
        assert sum(map(ms, inside)) <= ms(span) + 0.01


@pytest.mark.parametrize(
    ("asked", "status", "name"),
    [
        (("GET", "/clusters/99"), 404, "GET /clusters/{id:id}"),
        (("POST", "/segment?crf=maybe&token=s3cr3t"), 422, "POST /segment"),
        (("BREW", "/clusters"), 405, "HTTP /clusters"),
    ],
)
def test_a_refusal_is_no_error_of_the_server(
    traced: TestClient, asked: tuple[str, str], status: int, name: str
) -> None:
    assert traced.request(*asked).status_code == status
    server, _ = exported()
    attributes = dict(server.attributes or {})
    assert (server.name, attributes["http.response.status_code"]) == (name, status)
    assert server.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes
    assert "s3cr3t" not in server.to_json()


def test_a_failure_is_an_error_of_the_server(traced: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(B64)

    monkeypatch.setattr("service.inference.pipeline.region_stats.compute", broken)
    assert traced.post("/segment", content=PNG).status_code == 500
    server, stages = exported()
    assert server.status.status_code is StatusCode.ERROR
    assert (server.attributes or {})["error.type"] == "RuntimeError"
    assert "assign" in {span.name for span in stages}
    assert B64[:20] not in "".join(span.to_json() for span in EXPORTED.get_finished_spans())


def test_probes_are_not_traced_and_nobodys_traceparent_is_believed_that_is_none(traced: TestClient) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics"):
        traced.get(path)
    assert not EXPORTED.get_finished_spans()
    traced.get("/clusters", headers={"traceparent": "00-zz-yy-01", "tracestate": "a" * 5000, "baggage": "user=1"})
    assert exported()[0].parent is None


def test_what_the_caller_does_not_sample_is_not_exported_and_answered(traced: TestClient) -> None:
    answer = traced.get("/clusters", headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})
    assert answer.headers["x-request-id"] == TRACE
    assert not EXPORTED.get_finished_spans()


def test_fastapi_does_not_trace_by_itself(traced: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would where a library in the process has set a provider for all, with the query."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(EXPORTED))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    traced.get("/clusters?token=s3cr3t")
    assert [span.name for span in EXPORTED.get_finished_spans()] == ["GET /clusters"]


def test_each_image_of_a_job_is_a_trace_that_names_the_job(traced: TestClient) -> None:
    job = begun(traced, ZIP)
    settled(traced, job)
    named = [span for span in EXPORTED.get_finished_spans() if (span.attributes or {}).get("tessera.job.id") == job]
    images = [span for span in named if span.name == "job image"]
    assert len(images) == 3
    assert all(span.parent is None for span in images)
    assert [span.name for span in named if span not in images] == ["POST /jobs"]
    assert "b c" not in "".join(span.to_json() for span in EXPORTED.get_finished_spans())


def test_requests_that_shared_a_run_of_the_network_are_linked() -> None:
    def asked(n: int) -> Any:
        return TRACER.request("POST", Headers({}), time.perf_counter(), {"url.path": f"/{n}"})

    alone, *three = [asked(n) for n in range(4)]
    unsampled = TRACER.request("POST", Headers({"traceparent": f"00-{TRACE}-{CALLER}-00"}), 0.0, {})
    batch = Batch(4, tuple(RequestContext(one.id, span=one.span) for one in (*three, unsampled)))
    now = time.perf_counter()
    for one in (alone, *three):
        one.images.append(ImageTrace([Span("encoder", now - 1, now)], {}, None if one is alone else batch))
    for one in (unsampled, *reversed(three), alone):
        one.end("/segment", 200)
    runs = {span.context.trace_id: span for span in EXPORTED.get_finished_spans() if span.name == "encoder"}
    ids = {one.span.trace_id for one in three}
    for one in three:
        span = runs[one.span.trace_id]
        assert {link.context.trace_id for link in span.links} == ids - {one.span.trace_id}
        assert (span.attributes or {})["tessera.batch.size"] == 4
    assert not runs[alone.span.trace_id].links


# ---- out


def test_the_client_says_in_whose_trace_it_asks(traced: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def passed_on(request: httpx.Request) -> httpx.Response:
        answer = traced.request(
            request.method, request.url.raw_path.decode(), content=request.read(), headers=dict(request.headers)
        )
        return httpx.Response(answer.status_code, content=answer.content)

    with Client("http://localhost", key="secret", transport=httpx.MockTransport(passed_on)) as client:
        with TRACER._tracer.start_as_current_span("a program's") as span:
            client.clusters()
        client.clusters()
        with TRACER._tracer.start_as_current_span("of many"):
            assert len(list(client.segment_many([PNG, PNG]))) == 2
        of_many = [one for one in EXPORTED.get_finished_spans() if one.name in ("POST /segment", "of many")]
        assert len({one.context.trace_id for one in of_many}) == 1
        mine, nobodys = [one.parent for one in EXPORTED.get_finished_spans() if one.name == "GET /clusters"]
        assert nobodys is None
        assert mine is not None
        assert (mine.trace_id, mine.span_id) == (span.get_span_context().trace_id, span.get_span_context().span_id)
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
        monkeypatch.setitem(sys.modules, "opentelemetry", None)  # not installed
        assert client.clusters().clusters


def test_what_is_fetched_for_a_request_is_fetched_in_its_trace() -> None:
    seen: list[httpx.Request] = []

    def label_studio(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(PNG))

    async def fetch(span: Any) -> None:
        current.set((RequestContext("a", span=span),))
        async with httpx.AsyncClient(transport=httpx.MockTransport(label_studio)) as client:
            files = LabelStudioFiles(client, "http://labels.example.org", "", 2**20)
            assert await files.read("/data/upload/1/a.png", lambda _: None) == PNG

    request = TRACER.request("POST", Headers(PARENT), time.perf_counter(), {})
    asyncio.run(fetch(request.span))
    asyncio.run(fetch(None))
    request.end("/predict", 200)
    assert seen[0].headers["traceparent"] == f"00-{TRACE}-{request.span.span_id:016x}-01"
    assert seen[0].headers["tracestate"] == "theirs=1"
    assert "traceparent" not in seen[1].headers


def test_who_shared_a_run_and_who_waited_for_anothers_says_so(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Slow()
    monkeypatch.setattr(app, "tracer_of", lambda *_: TRACER)
    with (
        server_of(tiny_bundle, tmp_path)(lambda _: engine, max_batch_size=8) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        batcher = client.app.state.tessera.registry.get(None).batcher  # type: ignore[attr-defined]

        def asked(image: int, running: int, waiting: int) -> Future[httpx.Response]:
            sent = pool.submit(lambda: client.post("/segment", content=encode(picture(image, 40), "png")))
            wait_until(lambda: (batcher.running, batcher.waiting) == (running, waiting))
            return sent

        engine.go.clear()
        answers = [asked(1, 1, 0), asked(2, 1, 1), asked(3, 1, 2)]
        answers.append(pool.submit(lambda: client.post("/segment", content=encode(picture(3, 40), "png"))))
        making = client.app.state.tessera.runtime.network_outputs._making  # type: ignore[attr-defined]
        wait_until(lambda: sum(one.waiting for one in making.values()) == 4)
        engine.go.set()
        ids = [answer.result().headers["x-request-id"] for answer in answers]
    runs = {f"{one.context.trace_id:032x}": one for one in EXPORTED.get_finished_spans() if one.name == "encoder"}
    links = {id: {f"{link.context.trace_id:032x}" for link in span.links} for id, span in runs.items()}
    assert links == {ids[0]: set(), ids[1]: {ids[2]}, ids[2]: {ids[1]}}
    waits = [one for one in EXPORTED.get_finished_spans() if one.name == "wait"]
    assert ids[3] in {f"{one.context.trace_id:032x}" for one in waits}
