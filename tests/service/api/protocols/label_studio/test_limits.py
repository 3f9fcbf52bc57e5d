"""Label Studio's limits in a full house: it gives up on a connection or /health after 1 s, on /setup after 3 s."""

import asyncio
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from models.io.encode import encode
from tests.service.api.protocols.label_studio.test_routes import BRUSH, asking, uri
from tests.service.process import process

pytestmark = pytest.mark.slow
CONNECT_S, HEALTH_S, SETUP_S, PREDICT_S = 1.0, 1.0, 3.0, 100.0
FLOOD = 400  # requests at once: more than one client may have inside


def test_they_are_kept_while_everything_is_taken(tiny_bundle: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8)
    photo, small = encode(noise, "jpeg", 90), encode(noise[:60, :100], "png")
    took: dict[str, list[float]] = {"health": [], "setup": []}
    statuses: list[int] = []

    async def flood(client: httpx.AsyncClient, until: float) -> None:
        while time.monotonic() < until:
            try:
                statuses.append((await client.post("/segment?crf=fast", content=photo)).status_code)
            except httpx.TransportError:
                statuses.append(0)

    async def label_studio(url: str, until: float) -> None:
        await asyncio.sleep(1)
        while time.monotonic() < until:
            async with httpx.AsyncClient(base_url=url) as client:  # it connects anew for every call
                began = time.monotonic()
                answer = await client.get("/health", timeout=httpx.Timeout(HEALTH_S, connect=CONNECT_S))
                took["health"].append(time.monotonic() - began)
                assert answer.json()["status"] == "UP"
            async with httpx.AsyncClient(base_url=url) as client:
                began = time.monotonic()
                sent = {"project": "1.17", "schema": BRUSH}
                answer = await client.post("/setup", json=sent, timeout=httpx.Timeout(SETUP_S, connect=CONNECT_S))
                took["setup"].append(time.monotonic() - began)
                assert answer.status_code == 200, answer.text
            await asyncio.sleep(0.05)

    async def play(url: str) -> httpx.Response:
        until = time.monotonic() + 6
        limits = httpx.Limits(max_connections=FLOOD)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            flooding = [asyncio.ensure_future(flood(client, until)) for _ in range(FLOOD)]
            await label_studio(url, until - 1)
            answer = await client.post("/predict", json=asking(uri(small)), timeout=PREDICT_S)
            await asyncio.gather(*flooding)
        return answer

    with process(tiny_bundle, tmp_path / "state", TESSERA_ACCESS_LOG="false", TESSERA_CACHE_BYTES="0") as (_, port):
        answer = asyncio.run(play(f"http://127.0.0.1:{port}"))
    assert {429, 503} & set(statuses), "it was full"
    assert 200 in statuses
    assert len(took["setup"]) >= 5
    print({name: f"{max(times):.3f} s at most of {len(times)}" for name, times in took.items()})
    assert answer.status_code in (200, 429, 503)
