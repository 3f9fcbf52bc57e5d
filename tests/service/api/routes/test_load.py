"""POST /segment under load: limits, deadlines, clients that leave, many at once."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.io.encode import encode
from service.api import middleware
from tests.service.answers import B64, PNG, labels, problem
from tests.service.fakes import Slow
from tests.tiny import bands


@pytest.fixture(autouse=True)
def _no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of these tests sends nothing more once it has its answer."""
    monkeypatch.setattr(middleware, "LINGER_S", 0.05)


def test_a_body_over_the_limit_is_refused_before_and_while_it_comes(serve: Any) -> None:
    with serve(max_body_bytes=4096, max_bytes=2048) as client:
        assert "MAX_BODY_BYTES" in problem(client.post("/segment", content=bytes(5000)), 413)
        chunks = (bytes(1000) for _ in range(6))
        answer = client.post("/segment", content=chunks)
        problem(answer, 413)
        assert answer.headers["connection"] == "close"
        problem(client.post("/segment", content=b"\x89PNG\r\n\x1a\n" + bytes(3000)), 413)


def test_the_bodies_of_all_requests_have_one_bound(serve: Any) -> None:
    with serve(max_bodies_bytes=2**20) as client:
        admission = client.app.state.tessera.runtime.admission
        with admission.hold() as hold:
            hold(2**20 - len(PNG) + 1)  # what another request has sent so far
            answer = client.post("/segment", content=PNG)
            assert "uploads" in problem(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1
            problem(client.post("/segment", json={"image": B64}), 503)
        assert client.post("/segment", content=PNG).status_code == 200
        assert admission.bytes == 0


def test_too_many_images_are_413(serve: Any) -> None:
    with serve(max_images=2) as client:
        assert "MAX_IMAGES" in problem(client.post("/segment", json={"images": [B64] * 3}), 413)
        problem(client.post("/segment", files=[("image", PNG)] * 3), 413)


def test_the_deadline_is_kept_and_the_work_dropped(serve: Any) -> None:
    slow = Slow()
    with serve(lambda bundle: slow, cache_bytes=0) as client, ThreadPoolExecutor(1) as pool:
        slow.go.clear()
        slow.started.clear()
        first = pool.submit(client.post, "/segment?format=npy", content=PNG)
        assert slow.started.wait(10)
        assert "timeout_ms" in problem(client.post("/segment?timeout_ms=100", content=PNG), 504)
        seen = slow.images
        slow.go.set()
        labels(first.result())
        labels(client.post("/segment?format=npy", content=PNG))
        assert slow.images == seen + 1  # the one that gave up while it was queued never ran
        assert 'tessera_refused_total{reason="deadline"} 1.0' in client.get("/metrics").text


def test_the_work_of_a_client_who_left_is_dropped(serve: Any) -> None:
    slow = Slow()
    with serve(lambda bundle: slow, cache_bytes=0) as client, ThreadPoolExecutor(1) as pool:
        slow.go.clear()
        slow.started.clear()
        first = pool.submit(client.post, "/segment?format=npy", content=PNG)
        assert slow.started.wait(10)
        sent: list[Any] = []

        async def leave_while_queued() -> None:
            messages = [{"type": "http.request", "body": PNG, "more_body": False}]

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                while not client.app.state.tessera.registry.served[0].batcher.waiting:
                    await asyncio.sleep(0.005)
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/segment", "query_string": b"", "headers": []}
            await client.app(scope, receive, send)

        client.portal.call(leave_while_queued)
        assert sent == []
        assert client.get("/healthz").json()["waiting"] == 0
        seen = slow.images
        slow.go.set()
        labels(first.result())
        labels(client.post("/segment?format=npy", content=PNG))
        assert slow.images == seen + 1
        assert 'tessera_refused_total{reason="client_left"} 1.0' in client.get("/metrics").text


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(serve: Any) -> None:
    slow = Slow()
    with serve(lambda bundle: slow, cache_bytes=0, max_queue_size=2) as client, ThreadPoolExecutor(2) as pool:
        slow.go.clear()
        inside = [pool.submit(client.post, "/segment?format=npy", content=PNG) for _ in range(2)]
        while client.get("/healthz").json()["inside"] < 2:
            time.sleep(0.01)
        answer = client.post("/segment", content=PNG)
        problem(answer, 503)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert client.get("/livez").status_code == 200
        text = client.get("/metrics").text
        assert 'tessera_refused_total{reason="queue_full"} 1.0' in text
        assert "tessera_requests_running 1.0" in text
        assert "tessera_requests_waiting 1.0" in text
        slow.go.set()
        for answer in inside:
            labels(answer.result())


def test_a_hundred_at_once_each_get_their_own_answer(client: TestClient) -> None:
    """Every image is one of 5 × 20 known ones; a mixed-up answer has another size or another color."""

    def ask(i: int) -> bool:
        color, width = i % 5, 24 + i // 5
        photo = encode(np.ascontiguousarray(bands(24, 5 * width)[:, color * width : (color + 1) * width]), "png")
        got = labels(client.post("/segment?format=npy", content=photo))
        return got.shape == (24, width) and bool((got == color).all())

    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(ask, range(100)))
