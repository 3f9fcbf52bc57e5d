"""Threads for the dense CRF."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from models import refine as refinement
from models.io.encode import encode
from tests.service.answers import PNG
from tests.service.fakes import wait_until


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
