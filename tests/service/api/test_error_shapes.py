"""Every refusal under a dialect's paths has the dialect's shape, whoever refuses."""

import json
import socket
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.error_shapes import RFC_9457, SHAPES, shape_of
from service.api.problems import internal, plain
from service.errors import quoted
from tests.service.answers import PNG, problem
from tests.service.server import Serve


def refused(answer: Any, status: int, path: str) -> str:
    """What a refusal says, in the shape of its path."""
    if shape_of(path) is RFC_9457:
        return problem(answer, status)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert set(answer.json()) == {"error"}
    return str(answer.json()["error"])


@pytest.mark.parametrize(
    ("path", "prefix"),
    [("/v2", "/v2"), ("/v2/", "/v2"), ("/v2/models", "/v2"), ("/hf/tiny", "/hf"), ("/v20", ""), ("/", ""), ("", "")],
)
def test_a_path_has_the_shape_of_its_first_name(path: str, prefix: str) -> None:
    assert shape_of(path) is SHAPES.get(prefix, RFC_9457)


def test_a_failure_of_ours_can_be_found_in_the_log() -> None:
    assert SHAPES["/v2"].render(internal("some-id"))["error"].endswith("under this request_id: some-id")
    assert SHAPES["/v2"].render(plain(404, "not there", "some-id")) == {"error": "not there"}


@pytest.mark.parametrize("path", ["/v2/nothing", "/hf", "/nothing"])
def test_whoever_refuses(serve: Serve, path: str) -> None:
    with serve(hosts="known.example") as own:
        assert "does not answer to the name" in refused(own.get(path), 421, path)
        own.base_url = "http://known.example"
        assert quoted(path) in refused(own.get(path), 405 if path == "/hf" else 404, path)
        assert "another site" in refused(own.post(path, headers={"sec-fetch-site": "cross-site"}), 403, path)
        own.app.state.tessera.in_flight.closed = True  # type: ignore[attr-defined]
        answer = own.get(path)
        assert "shutting down" in refused(answer, 503, path)
        assert answer.headers["retry-after"]


def test_a_full_queue_says_when_to_come_back(serve: Serve) -> None:
    with serve(max_queue_size=1) as own, own.app.state.tessera.runtime.admission.ticket():  # type: ignore[attr-defined]
        for path in ("/hf", "/segment"):
            answer = own.post(path, content=PNG)
            assert "as many as fit" in refused(answer, 503, path)
            assert int(answer.headers["retry-after"]) >= 1


def test_a_handler_that_fails(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no client may read this")

    monkeypatch.setattr("service.api.protocols.hugging_face._read", broken)
    answer = client.post("/hf", content=PNG)
    assert refused(answer, 500, "/hf").endswith(answer.headers["x-request-id"])
    assert "no client" not in answer.text


def test_below_the_application(address: str) -> None:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"POST /hf HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        answer = b""
        while more := line.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert "not HTTP" in json.loads(body)["error"]
