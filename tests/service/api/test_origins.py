"""Pages of other sites: refused where they would change something, unless TESSERA_ORIGINS names them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.origins import AllowedOrigins
from service.errors import NotAllowed
from service.settings import Settings, SettingsError
from tests.service.answers import PNG, problem
from tests.service.server import server_of

APP = "https://app.example.org"
ELSEWHERE = {"origin": "https://evil.example"}


@pytest.fixture(scope="module")
def of_app(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that lets the pages of APP ask."""
    with server_of(tiny_bundle, tmp_path_factory.mktemp("state"))(origins=APP) as ready:
        yield ready


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({}, True),  # no browser
        ({"origin": "http://testserver"}, True),
        ({"origin": "https://testserver"}, True),  # a proxy before us speaks https
        ({"origin": "HTTP://TestServer"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://behind.a.proxy"}, True),
        ({"sec-fetch-site": "none"}, True),  # typed by the user
        (ELSEWHERE, False),
        ({"origin": "null"}, False),
        ({"origin": "http://testserver.evil.example"}, False),
        ({"origin": "http://testserver:8001"}, False),
        ({"origin": "https://\u202egro.elpmaxe".encode()}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://testserver"}, False),
        ({"sec-fetch-site": "cross-site", "origin": APP}, True),
        ({"origin": APP}, True),
        ({"origin": "http://app.example.org"}, False),
    ],
)
def test_who_may_change_something(of_app: TestClient, headers: Any, served: bool) -> None:
    of_app.patch("/clusters/0", json={"name": None})
    for answer in (
        of_app.post("/segment", content=PNG, headers=headers),
        of_app.patch("/clusters/0", json={"name": "x"}, headers=headers),
    ):
        if served:
            assert answer.status_code == 200, answer.text
        else:
            detail = problem(answer, 403)
            assert "TESSERA_ORIGINS" in detail
            assert detail.isprintable()
    assert of_app.get("/clusters/0", headers=headers).json()["name"] == ("x" if served else "red")


@pytest.mark.parametrize(
    ("host", "origin", "served"),
    [
        ("a.example:443", "https://a.example", True),
        ("a.example:80", "http://a.example", True),
        ("a.example:443", "http://a.example", False),
        ("a.example:8000", "http://a.example", False),
        ("", "http://", False),
    ],
)
def test_a_port_that_goes_without_saying(host: str, origin: str, served: bool) -> None:
    scope = {"method": "POST", "headers": [(b"host", host.encode()), (b"origin", origin.encode())]}
    if served:
        AllowedOrigins().check(scope)
    else:
        with pytest.raises(NotAllowed):
            AllowedOrigins().check(scope)


def test_without_the_setting_no_page_reads_anything(client: TestClient) -> None:
    for answer in (client.get("/clusters", headers=ELSEWHERE), client.options("/clusters", headers=ELSEWHERE)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    problem(client.post("/segment", content=PNG, headers=ELSEWHERE), 403)


def test_a_named_page_reads_answers_and_refusals(serve: Any) -> None:
    asks = {
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "x-api-key,content-type,if-match",
    }
    with serve(origins=f"{APP},http://localhost:3000", keys="anna=secret") as client:
        keyed = {"origin": APP, "x-api-key": "secret"}
        preflight = client.options("/clusters/0", headers={"origin": APP, **asks})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == APP
        assert "PATCH" in preflight.headers["access-control-allow-methods"]
        assert "x-request-id" in preflight.headers
        client.app.state.tessera.in_flight._running.set(10**6)
        answers = [client.get("/clusters", headers=keyed)]
        assert answers[0].status_code == 503  # refused before any route
        client.app.state.tessera.in_flight._running.set(0)
        answers += [
            client.get("/clusters", headers=keyed),
            client.get("/clusters", headers={"origin": APP}),
            client.post("/segment", content=b"x", headers=keyed),
            client.get("/nothing", headers=keyed),
        ]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == APP
            exposed = answer.headers["access-control-expose-headers"]
            for name in (
                "X-Request-ID",
                "X-Model",
                "Server-Timing",
                "X-Warning",
                "X-Familiarity",
                "X-Orientation",
                "ETag",
                "Retry-After",
            ):
                assert name in exposed
            assert "access-control-allow-credentials" not in answer.headers
        refused = client.options("/clusters/0", headers={**ELSEWHERE, **asks})
        assert "TESSERA_ORIGINS" in problem(refused, 400)
        assert "access-control-allow-origin" not in client.get("/clusters", headers={**keyed, **ELSEWHERE}).headers


def test_a_star_needs_keys(serve: Any) -> None:
    with pytest.raises(SettingsError, match="TESSERA_KEYS"), serve(origins="*"):
        pass
    with serve(origins="*", keys="anna=secret") as client:
        answer = client.post("/segment", content=PNG, headers={**ELSEWHERE, "x-api-key": "secret"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"


def test_default_ports_are_left_out_as_browsers_do() -> None:
    allowed = AllowedOrigins.from_settings(Settings(origins="HTTPS://a.example:443,http://b.example:8080"), keys=False)
    for origin in (b"https://a.example", b"http://b.example:8080"):
        allowed.check({"method": "POST", "headers": [(b"host", b"x"), (b"origin", origin)]})


@pytest.mark.parametrize(
    "text", ["a.example", "https://a.example/", "https://*.example", "null", "https://", "https://a b", "https://u@a"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="TESSERA_ORIGINS"):
        AllowedOrigins.from_settings(Settings(origins=text), keys=True)
