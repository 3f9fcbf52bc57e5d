"""X-AnyLabeling's remote server, as its client (4.2.1) calls it and reads what comes back."""

import base64
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.io.encode import encode
from tests.models.test_bridges import area, inside
from tests.service.answers import B64, PNG, TEXT, labels
from tests.service.server import Serve
from tests.tiny import COLORS

ROOT = "/x-anylabeling/v1"
PARAMS = {"conf_threshold": 0.0, "iou_threshold": 0.0, "epsilon_factor": 0.001}  # the client sends all three, always


def ask(client: TestClient, image: str = f"data:image/png;base64,{B64}", **params: Any) -> Any:
    sent = {"model": "tiny", "image": image, "params": {**PARAMS, **params}}
    return client.post(f"{ROOT}/predict", json=sent, headers={"Token": "", "Content-Type": "application/json"})


def shapes(answer: Any) -> list[dict[str, Any]]:
    """As the client takes them out of an answer."""
    answer.raise_for_status()
    data = answer.json()["data"]
    assert answer.json()["success"] is True
    assert data["replace"] is True
    assert isinstance(data["description"], str)
    for shape in data["shapes"]:
        assert shape["shape_type"] == "polygon"
        assert all(len(point) == 2 for point in shape["points"])
        assert 0 <= shape["score"] <= 1
    return list(data["shapes"])


def rings() -> bytes:
    """Squares in each other, which make regions with holes."""
    image = np.zeros((240, 320, 3), np.uint8)
    for depth, color in enumerate(["red", "white", "blue", "green"]):
        image[24 * depth : 240 - 24 * depth, 32 * depth : 320 - 32 * depth] = COLORS[color]
    return encode(image, "png")


def test_its_list_of_models(client: TestClient) -> None:
    answer = client.get(f"{ROOT}/models", headers={"Token": ""}).json()
    assert answer["success"] is True
    (name,) = answer["data"]
    assert name == "tiny"
    assert answer["data"][name]["classes"] == list(COLORS)
    assert answer["data"][name]["batch_processing_mode"] == "default"
    assert {widget["name"] for widget in answer["data"][name]["widgets"]} >= {"button_run", "edit_conf"}


@pytest.mark.parametrize("image", [PNG, rings()], ids=["bands", "rings"])
def test_polygons_are_the_label_map(client: TestClient, image: bytes) -> None:
    want = labels(client.post("/segment?format=npy", content=image))
    made = np.full(want.shape, -1)
    covered = 0.0
    found = shapes(ask(client, base64.b64encode(image).decode()))
    for shape in found:
        ring = np.array(shape["points"], int)
        mask = inside(ring, want.shape)
        assert mask.sum() == area(ring)
        assert (made[mask] == -1).all()
        made[mask] = list(COLORS).index(shape["label"])
        covered += area(ring)
    assert (made == want).all()
    assert covered == want.size
    sizes = [area(np.array(shape["points"], int)) for shape in found]
    assert sizes == sorted(sizes, reverse=True)


def test_parameters_choose(client: TestClient) -> None:
    found = shapes(ask(client))
    least = sorted(shape["score"] for shape in found)[1]
    assert len(shapes(ask(client, conf_threshold=least))) == len(found) - 1
    assert {shape["label"] for shape in shapes(ask(client, k=2))} < set(COLORS)
    assert {shape["label"] for shape in shapes(ask(client, only="0,2"))} == {"red", "blue"}
    assert shapes(ask(client, min_area=10**6)) == []
    assert len(shapes(ask(client, marks=[], text_prompt="car", current_task=None))) == len(found)


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 400, '"model" is a name'),
        (b'{"model": "tiny"}', 400, '"model" is a name'),
        (b'{"model": "tiny", "image": "%%"}', 400, "base64"),
        (f'{{"model": "tiny", "image": "{base64.b64encode(TEXT).decode()}"}}'.encode(), 400, "image"),
        (f'{{"model": "none", "image": "{B64}"}}'.encode(), 404, "none"),
        (f'{{"model": "tiny", "image": "{B64}", "params": {{"conf_threshold": 2}}}}'.encode(), 422, "conf_threshold"),
        (f'{{"model": "tiny", "image": "{B64}", "params": {{"k": 99}}}}'.encode(), 422, "k:"),
        (f'{{"model": "tiny", "image": "{B64}", "params": {{"color": 1}}}}'.encode(), 422, "'color'"),
    ],
    ids=range(9),
)
def test_refusals_are_in_its_shape(client: TestClient, sent: bytes, status: int, said: str) -> None:
    answer = client.post(f"{ROOT}/predict", content=sent)
    assert answer.status_code == status, answer.text
    assert answer.json()["success"] is False
    assert said in answer.json()["message"]
    assert answer.json()["error"]["message"] == answer.json()["message"]


def test_its_token_is_a_key(serve: Serve) -> None:
    with serve(keys="anna=secret-of-anna-12345") as client:
        answer = client.get(f"{ROOT}/models", headers={"Token": "wrong"})
        assert answer.status_code == 401
        assert answer.json()["success"] is False
        assert client.get(f"{ROOT}/models", headers={"Token": "secret-of-anna-12345"}).status_code == 200
    assert client.get("/x-anylabeling/nothing").json()["success"] is False
