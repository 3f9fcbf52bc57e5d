"""Threads for the dense CRF."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from models import refine as refinement
from models.io.encode import encode
from tests.service.answers import PNG
from tests.service.fakes import Slow, wait_until


def test_a_lone_image_gets_every_core_and_those_side_by_side_one_each(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    go = threading.Event()

    def refine(scores: Any, code: Any, fitted: Any, spec: Any, **options: Any) -> Any:
        threads.append(options["threads"])
        assert go.wait(20)
        return np.zeros(fitted.source, np.uint8)

    monkeypatch.setattr(refinement, "refine", refine)
    other = encode(np.full((64, 64, 3), 7, np.uint8), "png")
    with serve(workers=2) as client:
        client.app.state.tessera.runtime.cores = 7
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(client.post, "/segment?crf=true", content=PNG)
            wait_until(lambda: threads == [7])
            second = pool.submit(client.post, "/segment?crf=true", content=other)
            wait_until(lambda: len(threads) == 2)
            go.set()
            assert first.result().json()["refined"]
            assert second.result().json()["refined"]
    assert threads == [7, 1]


def test_a_key_s_flood_passes_the_network_no_faster_than_its_crfs(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def refine(scores: Any, code: Any, fitted: Any, spec: Any, **options: Any) -> Any:
        assert go.wait(20)
        return np.zeros(fitted.source, np.uint8)

    monkeypatch.setattr(refinement, "refine", refine)
    engine = Slow()
    photos = [encode(np.full((64, 64, 3), i, np.uint8), "png") for i in range(10)]
    keys = "a=secret-of-a,b=secret-of-b"
    with serve(lambda _: engine, workers=1, keys=keys) as client, ThreadPoolExecutor(10) as pool:
        before = engine.images

        def ask(photo: bytes, key: str, more: str = "&crf=true") -> Any:
            return client.post(f"/segment?format=json{more}", content=photo, headers={"X-API-Key": f"secret-of-{key}"})

        flood = [pool.submit(ask, photo, "a") for photo in photos[:8]]
        wait_until(lambda: len(client.app.state.tessera.runtime.admission) == 8)
        wait_until(lambda: engine.images == before + 2)
        assert ask(photos[8], "a", "").json()["warnings"] == []  # without a CRF it waits for none
        other = pool.submit(ask, photos[9], "b")
        wait_until(lambda: engine.images == before + 4)
        go.set()
        answers = [answer.result().json() for answer in (*flood, other)]
    assert all(answer["refined"] for answer in answers)
    assert max(answer["timings_ms"]["queue"] for answer in answers[:8]) > 0
