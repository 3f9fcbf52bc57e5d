"""The same image again: other options, other formats, many at once; and POST /similar."""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models import palette
from models.io.encode import encode
from tests.service.answers import B64, JPEG, PHOTO, PNG, labels, problem
from tests.service.fakes import Slow
from tests.tiny import CENTROIDS, bands


@pytest.fixture
def network() -> Slow:
    return Slow()


QUERIES = (
    "format=npy", "format=npy&k=3", "format=png", "format=overlay&alpha=0.3", "format=color&only=1,2",
    "confidence=true", "crf=true&format=npy", "crf=true&crf_iterations=2",
)  # fmt: skip


def test_other_options_need_no_second_pass_and_say_the_same(serve: Any, network: Slow) -> None:
    with serve(lambda bundle: network) as client, serve(cache_bytes=0) as plain:
        before = network.images
        for query in QUERIES:
            kept, fresh = (c.post(f"/segment?{query}", content=PNG) for c in (client, plain))
            assert kept.status_code == 200, kept.text
            if "json" in kept.headers["content-type"]:
                assert {**kept.json(), "timings_ms": 0} == {**fresh.json(), "timings_ms": 0}
            else:
                assert kept.content == fresh.content
        assert client.post("/similar?x=3&y=4", content=PNG).status_code == 200
        assert network.images == before + 1
        text = client.get("/metrics").text
        assert "tessera_cache_misses_total 1.0" in text
        assert f"tessera_cache_hits_total {len(QUERIES)}.0" in text
        assert "encoder;dur=0.00" in client.post("/segment?format=png", content=PNG).headers["server-timing"]


def test_other_bytes_are_another_image(serve: Any, network: Slow) -> None:
    with serve(lambda bundle: network) as client:
        before = network.images
        for content in (PNG, JPEG, encode(bands(60, 100, (4, 3, 2, 1, 0)), "png")):
            client.post("/segment", content=content)
        client.post("/segment?depth=full", content=PNG)
        client.post("/segment", files={"image": PNG})  # the same file in another wrapping
        client.post("/segment", json={"image": B64})
        assert network.images == before + 4


def test_a_crowd_with_one_image_is_one_pass(serve: Any, network: Slow) -> None:
    with serve(lambda bundle: network) as client, ThreadPoolExecutor(12) as pool:
        before = network.images
        network.go.clear()
        answers = [pool.submit(client.post, f"/segment?format=npy&alpha=0.{i}", content=PNG) for i in range(1, 10)]
        while "tessera_cache_hits_total 8.0" not in client.get("/metrics").text:
            pass
        network.go.set()
        maps = [labels(answer.result()) for answer in answers]
        assert all((found == maps[0]).all() for found in maps)
        assert network.images == before + 1


def test_switched_off_every_image_is_a_pass(serve: Any, network: Slow) -> None:
    with serve(lambda bundle: network, cache_bytes=0) as client:
        before = network.images
        for _ in range(3):
            client.post("/segment", content=PNG)
        assert network.images == before + 3
        text = client.get("/metrics").text
        assert "tessera_images_total 3.0" in text
        assert "tessera_batch_images_sum 3.0" in text


def test_what_cannot_be_read_is_not_remembered(serve: Any) -> None:
    with serve() as client:
        for _ in range(2):
            problem(client.post("/segment", content=PNG[:200]), 400)
        assert "tessera_cache_misses_total 2.0" in client.get("/metrics").text


def test_similar_is_the_cosine_with_the_pixel(serve: Any) -> None:
    with serve() as client:
        answer = client.post("/similar?x=50&y=30&format=npy", content=PNG)
        assert answer.headers["content-type"] == "application/x-npy"
        assert answer.headers["x-model"].startswith("tiny@")
        cosines = np.load(io.BytesIO(answer.content))
        assert cosines.shape == PHOTO.shape[:2]
        assert cosines[30, 50] == pytest.approx(1, abs=1e-4)
        blue, white = CENTROIDS[2], CENTROIDS[3]
        assert cosines[30, 70] == pytest.approx(float(blue @ white), abs=0.1)  # a band of almost that color
        picture = Image.open(io.BytesIO(client.post("/similar", files={"image": PNG}, data={"x": 50, "y": 30}).content))
        assert picture.mode == "P"
        np.testing.assert_allclose(np.asarray(picture) / 127.5 - 1, cosines, atol=0.005)
        colors = picture.getpalette()
        assert colors is not None
        assert (np.array(colors).reshape(-1, 3) == palette.heat()).all()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("x=50", "y: Field required"),
        ("x=-1&y=0", "x:"),
        ("x=100&y=0", "outside of 100×60"),
        ("x=1&y=1&format=jpeg", "format"),
        ("x=1&y=1&crf=true", "'crf' is not an option"),
    ],
)
def test_similar_says_what_is_wrong(client: Any, query: str, says: str) -> None:
    assert says in problem(client.post(f"/similar?{query}", content=PNG), 422)


def test_similar_takes_one_image_or_two(client: Any) -> None:
    assert client.post("/similar?x=1&y=1", json={"images": [B64, B64]}).status_code == 200
    assert "send one" in problem(client.post("/similar?x=1&y=1", json={"images": [B64, B64, B64]}), 422)


def test_who_shares_a_pass_does_not_share_its_end(serve: Any, network: Slow) -> None:
    """The first asker's time runs out while the image waits; the second, with more time, is answered all the same."""
    with serve(lambda bundle: network) as client, ThreadPoolExecutor(4) as pool:
        network.go.clear()
        busy = pool.submit(client.post, "/segment?format=npy", content=JPEG)
        hasty = pool.submit(client.post, "/segment?format=npy&timeout_ms=300", content=PNG)
        while "tessera_cache_misses_total 2.0" not in client.get("/metrics").text:
            pass
        patient = pool.submit(client.post, "/segment?format=npy", content=PNG)
        problem(hasty.result(), 504)
        network.go.set()
        assert labels(patient.result()).shape == labels(busy.result()).shape
