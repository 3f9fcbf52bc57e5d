"""Whose image is next, over HTTP: keys share the server, none fills it, and each is told when to come back."""

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.io.encode import encode
from tests.service.answers import PNG, labels, problem
from tests.service.fakes import Slow, wait_until

KEYS = {"keys": "anna=a-secret,bert=b-secret", "cache_bytes": 0}
ANNA, BERT = {"authorization": "Bearer a-secret"}, {"x-api-key": "b-secret"}


def gray(brightness: int) -> bytes:
    return encode(np.full((64, 64, 3), brightness, np.uint8), "png")


def order_of(client: TestClient, slow: Slow, asked: list[tuple[dict[str, str], str, int]]) -> list[int]:
    """The order in which these run, (headers, query, brightness) each, that come while one image is held inside."""
    batcher = client.app.state.tessera.registry.served[0].batcher  # type: ignore[attr-defined]
    slow.go.clear()
    slow.ran.clear()
    answers: list[Future[Any]] = []
    with ThreadPoolExecutor(len(asked)) as pool:
        for headers, query, brightness in asked:
            answers.append(
                pool.submit(client.post, f"/segment?format=npy&{query}", content=gray(brightness), headers=headers)
            )
            wait_until(lambda: batcher.running + batcher.waiting == len(answers))
        slow.go.set()
        for answer in answers:
            labels(answer.result())
    return slow.ran


def test_a_flood_of_one_key_does_not_delay_another_key(serve: Any) -> None:
    slow = Slow()
    with serve(lambda bundle: slow, **KEYS) as client:
        flood = [(ANNA, "", i) for i in range(10)]
        assert order_of(client, slow, [*flood, (BERT, "", 100)])[:4] == [0, 100, 1, 2]


def test_priority_goes_first_within_a_key_and_not_before_another_s(serve: Any) -> None:
    slow = Slow()
    with serve(lambda bundle: slow, **KEYS) as client:
        asked = [(ANNA, "", 0), (ANNA, "", 1), (BERT, "", 100), (BERT, "", 101), (ANNA, "priority=10", 2)]
        assert order_of(client, slow, asked) == [0, 100, 2, 101, 1]


def test_one_key_fills_its_share_and_others_are_served(serve: Any) -> None:
    slow = Slow()
    with (
        serve(lambda bundle: slow, **KEYS, max_key_images=2, max_queue_size=3) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        admission = client.app.state.tessera.runtime.admission
        slow.go.clear()
        inside = [pool.submit(client.post, "/segment?format=npy", content=PNG, headers=ANNA) for _ in range(2)]
        wait_until(lambda: len(admission) == 2)
        refused = client.post("/segment", content=PNG, headers=ANNA)
        assert "'anna'" in problem(refused, 429)
        assert refused.json()["type"] == "urn:tessera:too-many"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        inside.append(pool.submit(client.post, "/segment?format=npy", content=PNG, headers=BERT))
        wait_until(lambda: len(admission) == 3)
        full = client.post("/segment", content=PNG, headers=BERT)  # within its share: it is the house that is full
        problem(full, 503)
        assert 1 <= int(full.headers["retry-after"]) <= 60
        slow.go.set()
        for answer in inside:
            labels(answer.result())
        labels(client.post("/segment?format=npy", content=PNG, headers=ANNA))
        text = client.get("/metrics").text
        assert 'tessera_refused_total{reason="key_full"} 1.0' in text
        assert 'tessera_refused_total{reason="queue_full"} 1.0' in text


def test_without_keys_the_bound_is_the_house_s_alone(serve: Any) -> None:
    slow = Slow()
    limits = {"cache_bytes": 0, "max_key_images": 1, "max_queue_size": 3}
    with serve(lambda bundle: slow, **limits) as client, ThreadPoolExecutor(3) as pool:
        slow.go.clear()
        inside = [pool.submit(client.post, "/segment?format=npy", content=PNG) for _ in range(3)]
        wait_until(lambda: len(client.app.state.tessera.runtime.admission) == 3)
        problem(client.post("/segment", content=PNG), 503)
        slow.go.set()
        for answer in inside:
            labels(answer.result())


def test_keys_are_asked_of_everybody_but_the_probes(serve: Any) -> None:
    with serve(**KEYS) as client:
        for headers in ({}, {"x-api-key": "c-secret"}, {"authorization": "Basic YTpi"}):
            refused = client.post("/segment", content=PNG, headers=headers)
            assert "X-API-Key" in problem(refused, 401)
        for headers in (ANNA, BERT):
            labels(client.post("/segment?format=npy", content=PNG, headers=headers))
        for probe in ("/livez", "/readyz", "/healthz", "/metrics"):
            assert client.get(probe).status_code == 200
            assert "secret" not in client.get(probe).text


def test_more_than_fits_is_refused_and_both_keys_are_served(serve: Any) -> None:
    """Both keys send three times what fits: every answer is 200, or 429 or 503 with Retry-After."""
    with serve(**KEYS, max_key_images=3, max_queue_size=4) as client, ThreadPoolExecutor(24) as pool:

        def ask(i: int) -> tuple[str, int]:
            key = ("anna", "bert")[i % 2]
            answer = client.post("/segment?format=npy", content=PNG, headers=ANNA if key == "anna" else BERT)
            if answer.status_code == 200:
                assert labels(answer).shape == (60, 100)
            else:
                problem(answer, answer.status_code)
                assert 1 <= int(answer.headers["retry-after"]) <= 60
            return key, answer.status_code

        got = Counter(pool.map(ask, range(120)))
        assert {status for _, status in got} <= {200, 429, 503}
        assert min(got["anna", 200], got["bert", 200]) > 0
        admission = client.app.state.tessera.runtime.admission
        assert (len(admission), admission.mpx, admission.bytes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/clusters"), ("GET", "/clusters/0"), ("GET", "/clusters/tree"), ("GET", "/clusters/0/exemplars/0"),
        ("PATCH", "/clusters/0"), ("GET", "/models"), ("GET", "/models/tiny"), ("POST", "/segment"),
        ("POST", "/similar"),
    ],
)  # fmt: skip
def test_with_keys_every_door_but_the_probes_asks_for_one(serve: Any, method: str, path: str) -> None:
    with serve(keys="alice=a1") as client:
        answer = client.request(method, path, content=b"{}")
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert client.request(method, path, content=b"{}", headers={"X-API-Key": "a1"}).status_code != 401
        for probe in ("/livez", "/readyz", "/healthz", "/metrics"):
            assert client.get(probe).status_code == 200
