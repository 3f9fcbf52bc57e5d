"""The Hugging Face dialect, judged by `huggingface_hub`'s own clients against a server on loopback."""

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from tests.service.answers import B64, JPEG, PNG, TEXT, labels
from tests.service.server import Serve
from tests.tiny import COLORS

hub = pytest.importorskip("huggingface_hub")


def error(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert set(answer.json()) == {"error"}
    return str(answer.json()["error"])


def masks(answer: Any) -> dict[str, np.ndarray[Any, Any]]:
    assert answer.status_code == 200, answer.text
    pictures = {one["label"]: Image.open(io.BytesIO(base64.b64decode(one["mask"]))) for one in answer.json()}
    assert all(picture.mode == "L" for picture in pictures.values())
    return {label: np.asarray(picture) for label, picture in pictures.items()}


@pytest.mark.parametrize("model", ["hf", "hf/tiny"])
def test_their_client_gets_a_mask_for_every_cluster(address: str, photo: Path, model: str) -> None:
    client = hub.InferenceClient(model=f"http://{address}/{model}")
    for image in (PNG, JPEG, str(photo)):
        found = client.image_segmentation(image)
        assert {one.label for one in found} == set(COLORS)
        for one in found:
            mask = np.asarray(one.mask)
            assert one.mask.size == (100, 60)
            assert set(np.unique(mask)) == {0, 255}
            assert 0 < one.score <= 1
        assert sum(np.asarray(one.mask) == 255 for one in found).min() == 1


def test_their_parameters_choose_among_the_masks(address: str) -> None:
    client = hub.InferenceClient(model=f"http://{address}/hf", token="hf_of_somebody")
    found = client.image_segmentation(PNG, threshold=0.0, subtask="semantic")
    scores = sorted(one.score for one in found)
    some = client.image_segmentation(PNG, threshold=scores[2])
    assert sorted(one.score for one in some) == [score for score in scores if score >= scores[2]]
    surer = client.image_segmentation(PNG, mask_threshold=0.5, overlap_mask_area_threshold=0.1)
    before = {one.label: np.asarray(one.mask) == 255 for one in found}
    shares = []
    for one in surer:
        mask = np.asarray(one.mask) == 255
        assert not (mask & ~before[one.label]).any()
        shares.append(mask.sum() / before[one.label].sum())
    assert 0.1 <= min(shares) < 1


def test_what_is_refused_says_why_to_their_client(address: str) -> None:
    client = hub.InferenceClient(model=f"http://{address}/hf")
    with pytest.raises(hub.errors.HfHubHTTPError, match="semantic segmentation alone"):
        client.image_segmentation(PNG, subtask="panoptic")
    with pytest.raises(hub.errors.HfHubHTTPError, match=r"threshold: .* 0 to 1"):
        client.image_segmentation(PNG, threshold=7.0)
    with pytest.raises(hub.errors.HfHubHTTPError):
        client.image_segmentation(TEXT)
    with pytest.raises(hub.errors.HfHubHTTPError, match="no model 'nothing'; there is tiny"):
        hub.InferenceClient(model=f"http://{address}/hf/nothing").image_segmentation(PNG)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client itself, by what it sends with
def test_their_asynchronous_client_asks_for_several_at_once(address: str) -> None:
    async def several() -> list[Any]:
        async with hub.AsyncInferenceClient(model=f"http://{address}/hf/tiny") as client:
            return await asyncio.gather(*(client.image_segmentation(image) for image in (PNG, JPEG) * 4))

    for found in asyncio.run(several()):
        assert {one.label for one in found} == set(COLORS)


def test_the_masks_are_the_label_map(client: TestClient) -> None:
    ids = labels(client.post("/segment?format=npy", content=PNG))
    found = masks(client.post("/hf", content=PNG))
    for id, name in enumerate(COLORS):
        assert np.array_equal(found[name] == 255, ids == id)


def test_options_stand_in_the_url_or_among_the_parameters(client: TestClient) -> None:
    assert len(masks(client.post("/hf?k=2", content=PNG))) == 2
    asked = {"inputs": B64, "parameters": {"k": 3, "crf": False, "mask_threshold": None}}
    assert len(masks(client.post("/hf/tiny", json=asked))) == 3
    assert "given twice" in error(client.post("/hf?k=2", json={"inputs": B64, "parameters": {"k": 3}}), 422)
    assert "own form" in error(client.post("/hf?format=png", content=PNG), 422)
    assert "in the path" in error(client.post("/hf", json={"inputs": B64, "parameters": {"model": "x"}}), 422)
    assert "is not an option" in error(client.post("/hf", json={"inputs": B64, "parameters": {"crff": 1}}), 422)
    assert "a parameter is" in error(client.post("/hf", json={"inputs": B64, "parameters": {"k": [1]}}), 422)


def test_only_what_is_shown_is_answered(serve: Serve) -> None:
    with serve() as own:
        assert own.patch("/clusters/1", json={"hidden": True, "name": "lawn"}).status_code == 200
        assert own.patch("/clusters/2", json={"name": "sky"}).status_code == 200
        assert set(masks(own.post("/hf", content=PNG))) == {"red", "sky", "white", "black"}
        assert set(masks(own.post("/hf?only=1,2", content=PNG))) == {"lawn", "sky"}


def test_every_refusal_has_their_shape(serve: Serve) -> None:
    with serve(keys="one=sesame", max_body_bytes=2048, max_queue_size=1) as own:
        assert "a key is needed" in error(own.post("/hf", content=PNG), 401)
        own.headers["authorization"] = "Bearer sesame"
        assert len(masks(own.post("/hf", content=PNG))) == 5
        assert "use POST" in error(own.get("/hf"), 405)
        assert "nothing at" in error(own.post("/hf/tiny/more", content=PNG), 404)
        assert "MiB allowed" in error(own.post("/hf", content=b"\0" * 4096), 413)
        assert "empty" in error(own.post("/hf"), 400)
        assert "'br'" in error(own.post("/hf", content=PNG, headers={"content-encoding": "br"}), 415)
        assert "nothing is fetched" in error(own.post("/hf", json={"inputs": "http://127.0.0.1/secret"}), 400)
        assert "base64" in error(own.post("/hf", json={"inputs": "%"}), 400)
        assert "base64 text" in error(own.post("/hf", json={"inputs": [B64]}), 400)
        assert "is not: " in error(own.post("/hf", content=b"{"), 400)
        metrics = own.get("/metrics").text
        assert 'tessera_requests_total{code="200",route="/hf"} 1.0' in metrics
        assert 'tessera_requests_total{code="401",route="/hf"} 1.0' in metrics


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(lambda tail: b"{" + tail)))
def test_no_body_is_a_500(client: TestClient, body: bytes) -> None:
    answer = client.post("/hf", content=body)
    assert answer.status_code in (400, 415, 422)
    assert error(answer, answer.status_code)
