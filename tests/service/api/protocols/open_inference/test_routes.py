"""The Open Inference Protocol over HTTP, where no client goes: raw bodies, limits, keys, what is counted."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.api.protocols.open_inference import answer
from tests.service.answers import PHOTO, PNG, labels
from tests.service.api.protocols.open_inference.calls import INFER, binary, elements, image, pixels
from tests.service.server import Serve
from tests.tiny import write_tiny_bundle


def error(given: Any, status: int) -> str:
    assert given.status_code == status, given.text
    assert given.headers["content-type"] == "application/json"
    assert set(given.json()) == {"error"}
    return str(given.json()["error"])


def tensors(given: Any) -> dict[str, Any]:
    """The outputs of an answer by name, bytes and JSON alike."""
    assert given.status_code == 200, given.text
    length = given.headers.get("inference-header-content-length")
    size = int(length) if length else len(given.content)
    document, rest = json.loads(given.content[:size]), given.content[size:]
    found = {}
    for one in document["outputs"]:
        dtype = {"INT32": "<i4", "FP32": "<f4"}[one["datatype"]]
        if "data" in one:
            values = np.array(one["data"], dtype)
        else:
            count = one["parameters"]["binary_data_size"]
            values, rest = np.frombuffer(rest[:count], dtype), rest[count:]
        found[one["name"]] = values.reshape(one["shape"])
    assert not rest
    return found


def test_a_file_alone_is_a_call(client: TestClient) -> None:
    expected = labels(client.post("/segment?format=npy", content=PNG))
    for body in (PNG, elements(PNG)):
        given = client.post(INFER, content=body, headers={"inference-header-content-length": "0"})
        assert given.headers["content-type"] == "application/octet-stream"
        assert np.array_equal(tensors(given)["LABELS"][0], expected)


def test_nested_json_as_kserve_sends_it(client: TestClient) -> None:
    given = client.post(INFER, json=pixels() | {"id": "a"}, headers={"accept-encoding": "identity"})
    assert given.headers["content-type"] == "application/json"
    assert given.headers["x-model"].startswith("tiny@")
    assert "server-timing" in given.headers
    document = given.json()
    assert (document["model_name"], document["model_version"], document["id"]) == ("tiny", "1", "a")
    assert np.array_equal(tensors(given)["LABELS"][0], labels(client.post("/segment?format=npy", content=PNG)))


def test_answers_are_compressed_where_that_is_asked_for(client: TestClient) -> None:
    body, head = binary()
    plain = client.post(INFER, content=body, headers={**head, "accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for encoding in ("gzip", "deflate"):
        folded = client.post(INFER, content=body, headers={**head, "accept-encoding": encoding})
        assert folded.headers["content-encoding"] == encoding
        assert int(folded.headers["content-length"]) < len(plain.content)
        assert folded.content == plain.content
    small = client.post(
        INFER, json=image() | {"outputs": [{"name": "CLUSTERS_PRESENT"}]}, headers={"accept-encoding": "gzip"}
    )
    assert "content-encoding" not in small.headers


def test_ids_are_those_of_files(client: TestClient) -> None:
    for options in ({"id_offset": 1}, {"id_offset": 300, "unknown": 0.6}, {"unknown": 0.6}, {"k": 3, "id_offset": 1}):
        found = tensors(client.post(INFER, json=image() | {"parameters": options}))
        file = client.post("/segment", params={"format": "npy", **options}, content=PNG)
        assert np.array_equal(found["LABELS"][0], labels(file))
        nothing = 255 if options.get("id_offset", 0) < 200 else 65535
        assert set(found["CLUSTERS_PRESENT"][0]) == set(np.unique(found["LABELS"])) - {nothing}


def test_warnings_are_told(client: TestClient) -> None:
    given = client.post(INFER, json=pixels(shape=[1, 3, 4, 3], data=PHOTO[:3, :4].reshape(-1).tolist()))
    assert "smaller than one cell" in given.json()["parameters"]["warnings"]


def test_what_is_large_goes_as_bytes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "MOST_NUMBERS", 6004)
    wanted = image() | {"outputs": [{"name": "LABELS"}]}
    assert tensors(client.post(INFER, json=wanted))["LABELS"].shape == (1, 60, 100)
    assert "take outputs as bytes" in error(client.post(INFER, json=image()), 413)
    assert len(tensors(client.post(INFER, json=image() | {"parameters": {"binary_data_output": True}}))) == 3


def test_answers_are_bounded_and_counted(serve: Serve) -> None:
    with serve(max_body_bytes=2**13, max_bodies_bytes=2**20) as own:
        wanted = {"inference-header-content-length": "0"}
        assert tensors(own.post(INFER, content=PNG, headers=wanted))  # 48,000 of 65,536 bytes
        body, head = binary(elements(PNG, PNG), shape=[2])
        body = body.replace(b'{"inputs"', b'{"parameters":{"binary_data_output":true},"inputs"')
        head = {"inference-header-content-length": str(len(body) - len(elements(PNG, PNG)))}
        assert "ask for fewer outputs" in error(own.post(INFER, content=body, headers=head), 413)
        admission = own.app.state.tessera.runtime.admission  # type: ignore[attr-defined]
        assert (admission.bytes, len(admission)) == (0, 0)
        with admission.hold() as hold:
            hold(2**20 - 2**14)
            refused = own.post(INFER, content=PNG, headers=wanted)
            assert "come back" in error(refused, 503)
            assert refused.headers["retry-after"]
        assert admission.bytes == 0


def test_every_refusal_has_their_shape(serve: Serve) -> None:
    with serve(keys="one=sesame") as own:
        for method, path in (
            ("GET", "/v2"), ("GET", "/v2/models/tiny"), ("GET", "/v2/models/tiny/ready"), ("GET", "/v2/models/stats"),
            ("POST", INFER), ("POST", "/v2/repository/index"), ("GET", "/v2/models/tiny/config"),
        ):  # fmt: skip
            refused = own.request(method, path)
            assert "a key is needed" in error(refused, 401)
            assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert own.get(path).status_code == 200
        own.headers["authorization"] = "Bearer sesame"
        assert own.get("/v2").status_code == 200
        assert "nobody may do this here" in error(own.post("/v2/repository/models/tiny/load"), 403)
        assert "use POST" in error(own.get(INFER), 405)
        assert "/v2/health/live" in error(own.get("/v2/health/life"), 404)
        assert "is not JSON" in error(own.post(INFER, content=b""), 400)
        assert "is not JSON" in error(own.post("/v2/repository/index", content=b"{"), 400)
        assert "ready is" in error(own.post("/v2/repository/index", json={"ready": 1}), 400)
        assert "a JSON object" in error(own.post("/v2/repository/index", json=[]), 400)
        assert own.post("/v2/repository/index", json={"ready": True}).json()[0]["name"] == "tiny"
        assert own.post("/v2/repository/index", content=b" " * 2**16).status_code == 200
        assert error(own.post("/v2/repository/index", content=b" " * (2**16 + 1)), 413)
        assert "200 characters" in error(own.post(INFER.replace("tiny", "a" * 300), json=image()), 422)


def test_a_server_that_leaves_says_so(client: TestClient) -> None:
    state = client.app.state.tessera  # type: ignore[attr-defined]
    before, state.lifecycle = state.lifecycle, "draining"
    try:
        assert "the server is draining" in error(client.get("/v2/health/ready"), 503)
        assert client.get("/v2/health/live").json() == {"live": True}
    finally:
        state.lifecycle = before
    assert client.get("/v2/health/ready").json() == {"ready": True, "live": True}


def test_routes_are_counted_by_their_pattern(serve: Serve) -> None:
    with serve() as own:
        body, head = binary()
        given = own.post(INFER, content=body, headers={**head, "x-request-id": "mine"})
        assert given.headers["x-request-id"] == "mine"
        own.post("/v2/models/tiny/versions/1/infer", content=body, headers=head)
        own.get("/v2/models/tiny/versions/1/ready")
        metrics = own.get("/metrics").text
        for route in ("{model}/infer", "{model}/versions/{version}/infer", "{model}/versions/{version}/ready"):
            assert f'tessera_requests_total{{code="200",route="/v2/models/{route}"}} 1.0' in metrics


def test_models_are_loaded_and_put_away(tiny_bundle: Path, tmp_path: Path, serve: Serve) -> None:
    other = write_tiny_bundle(tmp_path / "models" / "other", name="other").path
    with serve(models=other.parent, admin_key="secret") as own:
        own.headers["x-api-key"] = "secret"
        answered = own.post("/v2/repository/models/other/load", content=b"{}")
        assert (answered.status_code, answered.json()) == (200, {})
        body, head = binary()
        head |= {"accept-encoding": "identity"}
        assert own.post("/v2/models/other/infer", content=body, headers=head).status_code == 200
        rows = own.post("/v2/repository/index").json()
        assert [(row["name"], row["state"]) for row in rows] == [("tiny", "READY"), ("other", "READY")]
        for bad in ({"parameters": {"default": 1}}, {"parameters": {"file:1/model.onnx": "AA=="}}):
            assert error(own.post("/v2/repository/models/other/load", json=bad), 422)
        sent = {"parameters": {"unload_dependents": False}}
        assert own.post("/v2/repository/models/other/unload", json=sent).status_code == 200
        assert "no model 'other'" in error(own.post("/v2/models/other/infer", content=body, headers=head), 404)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=80),
    length=st.none() | st.integers(0, 100).map(str) | st.text("0123456789-+ abc", max_size=5),
    encoding=st.sampled_from(["", "gzip", "deflate"]),
)
def test_no_body_is_a_500(client: TestClient, body: bytes, length: str | None, encoding: str) -> None:
    sent, head = binary(elements(body))
    headers = {"inference-header-content-length": length} if length is not None else head
    for content in (body, sent):
        told = {**headers, "content-encoding": encoding}
        given = client.post(INFER, content=gzip.compress(content) if encoding == "gzip" else content, headers=told)
        assert given.status_code in (400, 413, 415, 422), given.text
        assert error(given, given.status_code)
