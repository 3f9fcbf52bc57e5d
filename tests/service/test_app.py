"""The whole app: ids, headers, errors of HTTP itself, probes, metrics, the description, the page."""

import logging
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle
from models.inference import Prediction
from models.io.encode import encode
from service.api.error_shapes import shape_of
from service.api.state import Lifecycle
from service.app import WEB, create_app
from service.formats import registry as render
from service.metrics import Metrics
from service.repository.registry import Registry
from service.settings import Settings
from service.timings import Timings
from tests.service.fakes import FakeEngine, Slow, wait_until
from tests.tiny import bands

PNG = encode(bands(), "png")


@pytest.mark.parametrize("path", ["/livez", "/", "/clusters", "/nothing", "/segment", "/web/main.js", "/metrics"])
def test_every_answer_has_an_id_and_times(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "total;dur=" in answer.headers["server-timing"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"X-Request-ID": "job-7.a_b:c"}, "job-7.a_b:c"),
        ({"X-Request-ID": "a" * 128}, "a" * 128),
        ({"X-Request-ID": "a" * 129}, None),
        ({"X-Request-ID": "two words"}, None),
        ({"X-Request-ID": "<script>"}, None),
        ({"X-Request-ID": ""}, None),
        (
            {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
            "0af7651916cd43dd8448eb211c80319c",
        ),
        ({"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"}, None),
    ],
)
def test_a_well_formed_id_is_kept_and_another_replaced(
    client: TestClient, given: dict[str, str], kept: str | None
) -> None:
    for answer in (client.get("/livez", headers=given), client.post("/segment", content=b"x", headers=given)):
        got = answer.headers["x-request-id"]
        assert got == kept if kept else re.fullmatch(r"[0-9a-f]{32}", got)


def test_routes_and_methods_that_are_not_there(client: TestClient) -> None:
    lost = client.get("/segmnt")
    assert lost.status_code == 404
    assert "did you mean '/segment'" in lost.json()["detail"]
    wrong = client.get("/segment")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert "curl -F image=@photo.jpg" in wrong.json()["detail"]
    for answer in (lost, wrong, client.delete("/clusters/0"), client.get("/redoc"), client.get("/web/../app.py")):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code in (404, 405)


def test_our_own_fault_is_a_500_that_says_nothing(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Breaks(FakeEngine):
        broken = False

        def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
            if self.broken:
                raise RuntimeError("secret /etc/path")
            return super().__call__(pixels, code=code)

    encoder = Breaks()
    with serve(lambda bundle: encoder) as client:
        encoder.broken = True
        answer = client.post("/segment", content=PNG, headers={"X-Request-ID": "find-me"})
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert "secret" not in answer.text
        assert "find-me" in caplog.text
        assert "secret" in caplog.text
        encoder.broken = False
        assert client.post("/segment", content=PNG).status_code == 200


def test_probes(client: TestClient) -> None:
    assert client.get("/livez").json() == {"live": True}
    assert client.get("/readyz").json() == {"ready": True}
    health = client.get("/healthz").json()
    assert (health["ready"], health["reason"], health["names_kept"]) == (True, None, True)
    assert [(m["name"], m["state"], m["provider"]) for m in health["models"]] == [("tiny", "ready", "cpu")]


def test_probes_are_not_in_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for path in ("/livez", "/readyz", "/healthz", "/metrics", "/models"):
            client.get(path)
        client.get("/a%0d%0aforged")
    lines = [r.getMessage() for r in caplog.records if r.name == "tessera"]
    assert len(lines) == 2
    assert lines[0].startswith("GET /models 200")
    assert "\n" not in lines[1]


def test_not_ready_while_loading_and_live_all_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    app = create_app(Settings(bundles=(tiny_bundle,), state=tmp_path))
    client = TestClient(app)  # not entered: the lifespan has not begun
    assert client.get("/livez").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "loading" in client.post("/segment", content=PNG).json()["detail"]
    assert client.get("/healthz").json()["ready"] is False
    app.state.tessera.runtime.close()


def test_while_draining_new_work_is_refused_and_probes_answer(serve: Any) -> None:
    with serve() as client:
        client.app.state.tessera.drain()
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
        answer = client.post("/segment", content=PNG)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


def test_too_many_requests_at_once_are_refused_but_not_probes(serve: Any) -> None:
    with serve(max_requests=1) as client:
        client.app.state.tessera.in_flight._running.set(1)
        answer = client.post("/segment", content=PNG)
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:tessera:busy"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert client.get("/readyz").status_code == 200
        client.app.state.tessera.in_flight._running.set(0)
        assert client.post("/segment", content=PNG).status_code == 200


def test_metrics(serve: Any) -> None:
    with serve() as client:
        client.post("/segment?format=png", content=PNG)
        client.post("/segment", content=b"no")
        client.get("/models/tiny")
        client.get("/some/random/path")
        text = client.get("/metrics").text
    for line in (
        'tessera_requests_total{code="200",route="/segment"} 1.0',
        'tessera_requests_total{code="400",route="/segment"} 1.0',
        'tessera_requests_total{code="200",route="/models/{name}"} 1.0',
        'tessera_requests_total{code="404",route="other"} 1.0',
        "tessera_images_total 1.0",
        "tessera_batches_total 1.0",
        "tessera_batch_images_count 1.0",
        'tessera_stage_seconds_count{stage="encoder"} 1.0',
        'tessera_request_seconds_count{route="/segment"} 2.0',
        'tessera_cluster_pixels_total{cluster="0",model="tiny"} 1260.0',
        "tessera_requests_waiting 0.0",
        "tessera_requests_running 0.0",
        "tessera_oldest_request_seconds 0.0",
    ):
        assert line in text
    assert re.search(r'tessera_model_info\{digest="[0-9a-f]{12}",name="tiny",provider="cpu"\} 1.0', text)
    assert "tessera_build_info{" in text
    assert "_created" not in text


def test_models(client: TestClient) -> None:
    (row,) = client.get("/models").json()["models"]
    assert (row["name"], row["state"], row["default"], row["k"]) == ("tiny", "ready", True, 5)
    client.post("/segment", content=PNG)
    for name in ("tiny", f"tiny@{row['digest']}"):
        model = client.get(f"/models/{name}").json()
        assert model["manifest"]["code"]["dim"] == 3
        assert [64, 104] in model["warm_shapes"]
    assert client.get("/models/tinny").status_code == 404


def test_the_description_is_right(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = {
        (method, path): operation for path, item in document["paths"].items() for method, operation in item.items()
    }
    assert set(operations) == {
        ("post", "/segment"),
        ("post", "/similar"),
        ("get", "/classes"),
        ("post", "/classes"),
        ("get", "/classes/export"),
        ("put", "/classes/import"),
        ("get", "/classes/suggest"),
        ("post", "/classes/suggest"),
        ("get", "/classes/{id}"),
        ("put", "/classes/{id}"),
        ("delete", "/classes/{id}"),
        ("post", "/classes/{id}/examples"),
        ("delete", "/classes/{id}/examples/{n}"),
        ("get", "/clusters"),
        ("get", "/clusters/tree"),
        ("get", "/clusters/{id}"),
        ("patch", "/clusters/{id}"),
        ("get", "/clusters/{id}/exemplars/{n}"),
        ("get", "/models"),
        ("get", "/models/{name}"),
        ("post", "/models/{name}/load"),
        ("post", "/models/{name}/unload"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/healthz"),
        ("get", "/metrics"),
        ("get", "/jobs"),
        ("post", "/jobs"),
        ("get", "/jobs/{id}"),
        ("get", "/jobs/{id}/result"),
        ("delete", "/jobs/{id}"),
        ("get", "/models/canary"),
        ("patch", "/models/canary"),
        ("post", "/models/canary/promote"),
        ("post", "/models/canary/drop"),
        ("post", "/models/{name}/canary"),
        ("post", "/hf"),
        ("post", "/hf/{model}"),
        ("get", "/health"),
        ("post", "/setup"),
        ("post", "/predict"),
        ("post", "/validate"),
        ("get", "/versions"),
        ("post", "/webhook"),
        ("get", "/v2"),
        ("get", "/v2/health/live"),
        ("get", "/v2/health/ready"),
        ("get", "/v2/models/stats"),
        *(
            (method, f"/v2/models/{{model}}{version}{tail}")
            for version in ("", "/versions/{version}")
            for method, tail in (
                ("get", ""),
                ("get", "/ready"),
                ("get", "/config"),
                ("get", "/stats"),
                ("post", "/infer"),
            )
        ),
        ("post", "/v2/repository/index"),
        ("post", "/v2/repository/models/{model}/load"),
        ("post", "/v2/repository/models/{model}/unload"),
        ("get", "/x-anylabeling/v1/models"),
        ("post", "/x-anylabeling/v1/predict"),
    }
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    for (_, path), operation in operations.items():
        for status, answer in operation["responses"].items():
            if status == "304":
                assert "content" not in answer
                assert "ETag" in answer["headers"]
            elif not status.startswith("2"):
                assert list(answer["content"]) == [shape_of(path).media_type]
    segment = operations["post", "/segment"]
    assert set(segment["responses"]) == {
        "200", "400", "401", "403", "404", "406", "408", "413", "415", "421", "422", "429", "500", "503", "504", "507",
    }  # fmt: skip
    assert set(segment["responses"]["200"]["content"]) == {r.media_type for r in render.RENDERERS}
    options = {p["name"]: p["schema"] for p in segment["parameters"]}
    assert set(options) == {
        "model", "format", "crf", "crf_size", "crf_iterations", "crf_bilateral_sxy", "crf_bilateral_srgb",
        "crf_bilateral_compat", "crf_gaussian_compat", "k", "alpha", "only", "confidence", "depth", "page", "bands",
        "pyramid", "nodata", "timeout_ms", "priority", "tile", "palette", "id_offset", "min_area", "unknown", "formats",
        "classes", "merged", "file_name",
    }  # fmt: skip
    assert options["alpha"]["maximum"] == 1
    names = set(document["components"]["schemas"])
    assert {"Segmentation", "Segmentations", "Problem", "ClusterList", "ClusterInfo", "ModelList", "Health"} <= names
    assert "HTTPValidationError" not in names

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [r for v in node.values() for r in references(v)]
        return [r for v in node for r in references(v)] if isinstance(node, list) else []

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in names


def test_answers_are_what_the_description_says(client: TestClient) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = client.get("/openapi.json").json()
    for path in ("/clusters", "/clusters/0", "/clusters/tree", "/models", "/models/tiny", "/healthz"):
        template = re.sub(r"/0$", "/{id}", path).replace("/tiny", "/{name}")
        content = document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]
        jsonschema.validate(client.get(path).json(), {**content["schema"], "components": document["components"]})
    schema = document["paths"]["/segment"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    for send in ({"content": PNG}, {"files": [("image", PNG), ("image", b"no")]}):
        answer = client.post("/segment?confidence=true", **send).json()
        jsonschema.validate(answer, {**schema, "components": document["components"]})


@pytest.mark.parametrize("address", ["/", "/docs"])
def test_a_page_loads_nothing_from_elsewhere(client: TestClient, address: str) -> None:
    page = client.get(address)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in set(re.findall(r'(?:src|href)="([^"]+)"', page.text)):
        assert not re.match(r"/|\w+:", path), path
        assert client.get(f"/{path}").status_code == 200
    for file in (file for file in WEB.rglob("*") if file.suffix in (".js", ".css")):
        text = client.get(f"/web/{file.relative_to(WEB)}").text
        assert "://" not in text.replace('"http://www.w3.org/2000/svg"', ""), file  # a name of SVG's, no address
    for other in ("/docs/", "/web/docs/index.html"):
        assert client.get(other).url.path == "/docs"


def test_the_pages_files_are_packed_and_asked_for_again(client: TestClient) -> None:
    plain = client.get("/web/main.js", headers={"accept-encoding": "identity"})
    packed = client.get("/web/main.js", headers={"accept-encoding": "gzip"})
    assert (packed.headers["content-encoding"], packed.text) == ("gzip", plain.text)
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    again = client.get("/web/main.js", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


def test_the_service_never_meets_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; sys.modules['timm'] = None; import service.app, service.cli"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_405_names_every_method_of_a_path(client: TestClient) -> None:
    answer = client.put("/clusters/1", json={"name": "road"})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, PATCH"
    assert "use GET, PATCH" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET"),
        ("/segment", "POST"),
        ("/similar", "POST"),
        ("/clusters", "GET"),
        ("/clusters/tree", "GET"),
        ("/clusters/4", "GET, PATCH"),
        ("/clusters/0/exemplars/0", "GET"),
        ("/models/tiny/load", "POST"),
        ("/livez", "GET"),
        ("/openapi.json", "GET"),
        ("/web/main.js", "GET"),
        ("/docs", "GET"),
    ],
)
def test_allow_has_the_methods_of_a_path_and_no_others(client: TestClient, path: str, allowed: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = client.request(method, path)
        assert answer.headers.get("allow") == (allowed if method not in allowed.split(", ") else None), method
        assert (answer.status_code == 405) == (method not in allowed.split(", "))


@pytest.mark.parametrize("id", ["1_0", "+1", "01", "00", "1.0", "%201", "1%20", "１", "%D9%A1", "-0", "1e0", "9" * 30])
def test_an_id_has_one_spelling(client: TestClient, id: str) -> None:
    for path in (f"/clusters/{id}", f"/clusters/{id}/exemplars/0", f"/clusters/0/exemplars/{id}"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["detail"].isprintable()
    assert client.patch(f"/clusters/{id}", json={"name": "x"}).status_code == 404


def test_what_a_client_wrote_is_escaped_wherever_it_is_told(client: TestClient) -> None:
    odd = "a\u202eb\u2066c\x1b[31m\x85\u200d"
    sent = (
        {"params": {odd: "1"}},
        {"params": [(odd, "1"), (odd, "2")]},
        {"params": {"model": odd}},
        {"params": {"k": odd}},
    )
    answers = [client.post("/segment", content=PNG, **given) for given in sent]
    answers += [
        client.post("/segment", files={"image": PNG}, data={odd: "1"}),
        client.post("/segment", files={odd: ("x.png", PNG)}),
        client.post("/segment", json={odd: 1}),
        client.post("/segment", content=PNG, headers={"content-encoding": odd.encode()}),
        client.get(f"/{quote(odd)}"),
        client.get(f"/models/{quote(odd)}"),
        client.get(f"/clusters/{quote(odd)}"),
        client.get("/clusters", params={"include": odd}),
        client.patch("/clusters/0", json={odd: 1}),
        client.post(f"/models/{quote(odd)}/load"),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["detail"].isprintable(), answer.json()["detail"]


def test_who_changed_what_is_logged_on_one_line(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serve(keys="anna=one,bert:infer=two") as client, caplog.at_level(logging.INFO):
        change = {"name": 'grass"\u00e9', "hidden": True}
        refused = client.patch("/clusters/1", json=change, headers={"x-api-key": "two"})
        assert (refused.status_code, "'edit'" in refused.json()["detail"]) == (403, True)
        headers = {"x-api-key": "one", "x-request-id": "job-7"}
        assert client.patch("/clusters/1", json=change, headers=headers).status_code == 200
        assert client.post("/segment", content=PNG, headers={"x-api-key": "two"}).status_code == 200
        digest = client.get("/clusters", headers=headers).json()["digest"]
    (line,) = [message for message in caplog.messages if "changed cluster" in message]
    told = f"anna changed cluster 1 of tiny@{digest}: hidden False → True, name 'green' → 'grass\"é', request job-7"
    assert line == told


@pytest.mark.parametrize("path", ["/livez", "/", "/clusters", "/models"])
def test_head_answers_as_get_does(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code == 200
    assert head.headers["content-type"] == got.headers["content-type"]


class Nonsense(FakeEngine):
    """Answers NaN for pictures whose first pixel is black, in its scores or in its code alone."""

    of = "scores"

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        scores, codes = super().__call__(pixels, code=code)
        black = pixels[:, 0, 0, 0] < 20
        if self.of == "scores":
            scores[black] = np.nan
        elif codes is not None:
            codes[black] = np.inf
        return Prediction(scores, codes)


@pytest.mark.parametrize(("of", "path"), [("scores", "/segment"), ("code", "/segment?crf=true"), ("code", "/similar")])
def test_nan_from_a_network_is_a_problem_with_its_name_and_poisons_nothing(serve: Any, of: str, path: str) -> None:
    engine = Nonsense()
    black = encode(bands(order=(4, 0, 1, 2, 3)), "png")
    where = {"x": 3, "y": 3} if path == "/similar" else {}
    with serve(lambda bundle: engine) as client:
        engine.of = of
        for asked in (1, 2):  # it is not kept
            answer = client.post(path, content=black, params=where or None)
            assert (answer.status_code, answer.json()["type"]) == (500, "urn:tessera:network-not-finite")
            assert "tiny@" in answer.json()["detail"]
            assert f'network_failures_total{{model="tiny",reason="not_finite"}} {asked}' in client.get("/metrics").text
        assert client.post(path, content=PNG, params=where or None).status_code == 200
        assert "nan" not in client.get("/metrics").text.lower()
        assert client.get("/readyz").status_code == 200


def test_a_hung_network_turns_readiness_off_until_a_fresh_engine_serves(serve: Any) -> None:
    fresh, engines = threading.Event(), []

    def opens(bundle: Bundle) -> Slow:
        if engines:
            assert fresh.wait(20)
        engines.append(Slow())
        return engines[-1]

    with serve(opens, engine_timeout_s=0.3) as client:
        engines[0].go.clear()
        answer = client.post("/segment", content=PNG)
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:tessera:network-failed")
        unready = client.get("/readyz")
        assert (unready.status_code, "tiny@" in unready.json()["detail"]) == (503, True)
        busy = client.post("/segment", content=PNG)
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "5")
        (model,) = client.get("/models").json()["models"]
        assert (model["state"], "did not come back" in model["reason"]) == ("failed", True)
        assert client.get("/livez").status_code == client.get("/clusters").status_code == 200
        fresh.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/segment", content=PNG).status_code == 200
        assert "tessera_event_loop_lag_seconds_count" in client.get("/metrics").text
        engines[0].go.set()


def test_a_metric_is_never_nan() -> None:
    metrics = Metrics()
    for margin in (float("nan"), float("inf"), 0.5):
        metrics.segmented("tiny", [], Timings(()), refined=None, margin=margin)
    assert "tessera_margin_sum 0.5" in metrics.text().decode()


@pytest.mark.parametrize("error", [SystemExit(0), MemoryError(), RuntimeError("a library's own")])
def test_a_start_that_cannot_serve_ends_whatever_the_exception(
    error: BaseException, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Any) -> None:
        raise error

    monkeypatch.setattr(Registry, "load", fails)
    with TestClient(create_app(Settings(bundles=(tiny_bundle,), state=tmp_path))) as client:
        state = client.app.state.tessera  # type: ignore[attr-defined]
        wait_until(lambda: state.lifecycle is Lifecycle.FAILED)
        assert client.get("/readyz").json()["detail"] == "the server is failed"


def test_language_models_are_told_what_there_is(client: TestClient) -> None:
    told = client.get("/llms.txt")
    assert told.status_code == 200
    assert told.headers["content-type"] == "text/plain; charset=utf-8"
    described = client.get("/openapi.json").json()["paths"]
    for method, path in re.findall(r"`(GET|POST|PATCH) (/[a-z]+)", told.text):
        paths = [known for known in described if known == path or known == f"{path}/{{id}}"]
        assert any(method.lower() in described[known] for known in paths), path
