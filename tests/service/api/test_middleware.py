"""Around every request: what browsers are told, which names and paths are the server's, who guesses at keys."""

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.binding import Binding
from service.api.security_headers import security_headers
from service.app import create_app
from service.settings import Settings
from tests.service.answers import PNG
from tests.service.fakes import wait_until


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/web/index.html",
        "/web/page.js",
        "/web/icon.svg",
        "/web/nothing",
        "/livez",
        "/clusters",
        "/nothing",
        "/docs",
    ],
)
def test_browsers_are_told_what_no_answer_is_for(client: TestClient, path: str) -> None:
    for answer in (client.get(path, follow_redirects=False), client.post(path)):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors" in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        assert "strict-transport-security" not in answer.headers
        assert len(answer.headers.get_list("content-security-policy")) == 1


def test_https_is_insisted_on_where_it_is_spoken_to_others() -> None:
    for tls, loopback, told in ((True, False, True), (True, True, False), (False, False, False)):
        names = [name for name, _ in security_headers(tls=tls, loopback=loopback)]
        assert (b"strict-transport-security" in names) == told


@pytest.mark.parametrize("stripped", [True, False])
def test_under_a_path_of_a_proxy(tiny_bundle: Path, tmp_path: Path, stripped: bool) -> None:
    given = Settings(bundles=(tiny_bundle,), state=tmp_path, threads=1)
    prefix = "" if stripped else "/a/b"
    with TestClient(create_app(given, binding=Binding(root_path="/a/b"))) as client:
        wait_until(lambda: client.get(f"{prefix}/readyz").status_code == 200)
        page = client.get(f"{prefix}/")
        for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            assert client.get(f"{prefix}/{path}").status_code == 200
        (exemplar, *_) = client.get(f"{prefix}/clusters/0").json()["exemplars"]
        assert exemplar.startswith("/a/b/clusters/0/exemplars/")
        assert client.get(exemplar.removeprefix("/a/b") if stripped else exemplar).status_code == 200
        assert client.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/a/b"}]
        assert client.post(f"{prefix}/segment", content=PNG).status_code == 200
        assert client.get(f"{prefix}/segment").headers["allow"] == "POST"
        assert "did you mean '/segment'" in client.get(f"{prefix}/segmnt").json()["detail"]
        assert client.get(f"{prefix}/web/index.html", follow_redirects=False).headers["location"] == "/a/b/"
        assert client.get("/a/b", follow_redirects=False).headers["location"] == "/a/b/"
        assert client.get("/a/bc").status_code == 404


def test_a_name_from_elsewhere_is_421_where_the_server_is_this_machines(tiny_bundle: Path, tmp_path: Path) -> None:
    given = Settings(bundles=(tiny_bundle,), state=tmp_path, threads=1, hosts="api.example.org")
    app = create_app(given, binding=Binding(loopback=True))
    with TestClient(app, base_url="http://localhost:8000") as client:
        for path in ("/", "/livez", "/metrics", "/clusters", "/web/page.js", "/nothing"):
            answer = client.get(path, headers={"host": "rebound.example"})
            assert answer.status_code == 421
            assert answer.json()["type"] == "urn:tessera:misdirected"
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
            assert "TESSERA_HOSTS" in answer.json()["detail"]
        for host in ("127.0.0.1:8000", "[::1]", "api.example.org"):
            assert client.get("/livez", headers={"host": host}).status_code == 200


def test_guesses_at_keys_wait_over_http(serve: Any) -> None:
    with serve(keys="anna=one", trusted_proxies="127.0.0.1") as client:
        client.get("/models", headers={"x-api-key": "one"})
        statuses = [client.get("/models", headers={"x-api-key": f"guess {i}"}).status_code for i in range(14)]
        assert statuses == [401] * 10 + [429] * 4
        refused = client.post("/segment", content=PNG, headers={"x-api-key": "guess"})
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert client.get("/models", headers={"x-api-key": "one"}).status_code == 200
        assert 'tessera_refused_total{reason="wrong_keys"} 5.0' in client.get("/metrics").text
