"""The ML backend as Label Studio calls it; its own code judges the answers in tests/clients/label_studio.py."""

import base64
import json
import time
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.inference import Prediction
from models.io.encode import encode
from tests.models.test_bridges import inside
from tests.models.test_brush import read_stroke
from tests.service.answers import JPEG, PNG, TEXT, labels
from tests.service.fakes import FakeEngine
from tests.service.server import Serve
from tests.tiny import COLORS, bands

Asked = dict[str, Any]
LABELS = "".join(f'<Label value="{name}"/>' for name in COLORS)
BRUSH = (
    f'<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">{LABELS}</BrushLabels></View>'
)
POLYGON = BRUSH.replace("BrushLabels", "PolygonLabels").replace("brush", "polygon")


def uri(data: bytes = PNG) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def asking(*images: str, config: str = BRUSH, **more: Any) -> Asked:
    tasks = [{"id": i, "data": {"image": image}, "predictions": []} for i, image in enumerate(images or [uri()])]
    params = {"login": None, "password": None, "context": None, **more}
    return {"tasks": tasks, "project": "1.17", "label_config": config, "params": params}


def predicted(client: TestClient, asked: Asked, path: str = "/predict") -> list[dict[str, Any]]:
    answer = client.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(asked["tasks"])
    ref = answer.json()["model_version"]
    for one in results:
        assert 0 <= one["score"] <= 1
        assert one["model_version"] == ref or ("error" in one and one["model_version"].startswith(ref))
        ids = [region["id"] for region in one["result"]]
        assert len(set(ids)) == len(ids)
    return results


def mask_of(region: dict[str, Any]) -> np.ndarray:
    """bool [H, W] of a region, brush or polygon."""
    height, width = region["original_height"], region["original_width"]
    assert region["image_rotation"] == 0
    assert 0 <= region["score"] <= 1
    value = region["value"]
    if region["type"] == "brushlabels":
        assert value["format"] == "rle"
        channels = read_stroke(bytes(value["rle"])).reshape(height, width, 4)
        assert set(np.unique(channels)) <= {0, 255}
        assert (channels == channels[..., :1]).all()
        return channels[..., 3] == 255
    corners = np.array(value["points"]) * [width / 100, height / 100]
    assert np.allclose(corners, np.rint(corners), atol=1e-6)
    return inside(np.rint(corners).astype(int), (height, width))


def map_of(result: list[dict[str, Any]], kind: str) -> np.ndarray:
    """The label map that regions of a kind make together."""
    of_kind = [region for region in result if region["type"] == kind]
    made = np.full(mask_of(of_kind[0]).shape, -1)
    for region in of_kind:
        (name,) = region["value"][kind]
        mask = mask_of(region)
        assert (made[mask] == -1).all(), "no pixel is in two regions"
        made[mask] = list(COLORS).index(name)
    return made


@pytest.mark.parametrize("root", ["", "/label-studio"])
def test_a_server_is_connected(client: TestClient, root: str) -> None:
    assert client.get(f"{root}/health").json() == {"status": "UP", "model_class": "Tessera"}
    sent = {"project": "1.17", "schema": BRUSH, "hostname": "http://h", "access_token": "t", "extra_params": None}
    ref = client.post(f"{root}/setup", json=sent).json()["model_version"]
    assert ref == client.get("/models/tiny").headers["x-model"]
    assert client.request("GET", f"{root}/versions", json={"project": "1.17"}).json() == {"versions": [ref]}
    assert client.post(f"{root}/webhook", json={"action": "START_TRAINING", "project": {}}).status_code == 201
    assert client.post(f"{root}/validate", json={"config": BRUSH}).json() == {"status": "ok"}


@pytest.mark.parametrize("schema", ["<View></View>", "", "no xml"])
def test_a_project_without_a_configuration_is_connected_too(client: TestClient, schema: str) -> None:
    assert client.post("/setup", json={"project": "1.17", "schema": schema}).status_code == 200
    assert client.post("/setup", json={"project": "1.17", "schema": [schema]}).status_code == 422


@pytest.mark.parametrize("root", ["", "/label-studio"])
def test_brush_strokes_are_the_label_map(client: TestClient, root: str) -> None:
    (answer,) = predicted(client, asking(), f"{root}/predict")
    want = labels(client.post("/segment?format=npy", content=PNG))
    assert (map_of(answer["result"], "brushlabels") == want).all()
    assert {(one["from_name"], one["to_name"]) for one in answer["result"]} == {("brush", "image")}


def test_polygons_are_the_label_map_in_percent(client: TestClient) -> None:
    (answer,) = predicted(client, asking(config=POLYGON))
    want = labels(client.post("/segment?format=npy", content=PNG))
    assert (map_of(answer["result"], "polygonlabels") == want).all()


def test_both_tools_and_several_images(client: TestClient) -> None:
    config = f"""<View><Image name="a" value="$one"/><Image name="b" value="$two"/>
        <BrushLabels name="brush" toName="a,b">{LABELS}</BrushLabels>
        <PolygonLabels name="polygon" toName="b">{LABELS}</PolygonLabels></View>"""
    other = encode(bands(40, 50, (4, 2)), "png")
    asked = asking(config=config)
    asked["tasks"] = [{"data": {"one": uri(), "two": uri(other)}}]
    (answer,) = predicted(client, asked)
    for tag, kind, image in [("a", "brushlabels", PNG), ("b", "brushlabels", other), ("b", "polygonlabels", other)]:
        regions = [region for region in answer["result"] if region["to_name"] == tag]
        want = labels(client.post("/segment?format=npy", content=image))
        assert (map_of(regions, kind) == want).all()


def test_a_task_that_cannot_be_answered_has_its_reason_and_spoils_no_other(client: TestClient) -> None:
    asked = asking(uri(), uri(TEXT), "http://10.0.0.1/x.png", "data:image/png;base64,%%%", uri(JPEG))
    asked["tasks"].append({"id": 7, "data": {}})
    asked["tasks"].append("no task")
    first, text, far, damaged, last, *missing = predicted(client, asked)
    assert len(first["result"]) == len(last["result"]) == 5
    for failed, said in [
        (text, "image"),
        (far, "set TESSERA_LABEL_STUDIO_URL"),
        (damaged, "data: URI is damaged"),
        *((one, "'image' is missing, or no text") for one in missing),
    ]:
        assert failed["result"] == []
        assert failed["score"] == 0
        assert said in failed["error"]
        assert failed["model_version"].endswith(failed["error"][-20:]) or len(failed["model_version"]) == 200


def test_unmatched_clusters_are_left_out_and_told(client: TestClient) -> None:
    config = BRUSH.replace("red", "cluster_00").replace('"green"', '"grün" alias="GREEN"').replace("blue", "car")
    (answer,) = predicted(client, asking(config=config))
    assert {region["value"]["brushlabels"][0] for region in answer["result"]} == {
        "cluster_00",
        "GREEN",
        "white",
        "black",
    }
    assert answer["warnings"] == ["no label for 'blue' (or cluster_02): give a <Label> that value, or that alias"]


def test_options_stand_in_the_configuration(client: TestClient) -> None:
    config = BRUSH.replace('toName="image"', 'toName="image" tessera_k="2" tessera_crf="fast"')
    (answer,) = predicted(client, asking(config=config))
    want = np.unique(labels(client.post("/segment?format=npy&k=2&crf=fast", content=PNG)))
    assert len(answer["result"]) == len(want) == 2
    assert (
        client.post("/setup", json={"schema": config.replace("_k=", "_model=").replace('"2"', '"none"')}).status_code
        == 404
    )


def specks() -> np.ndarray:
    """Blue, with a large red square and a small one."""
    image = np.full((400, 400, 3), COLORS["blue"], np.uint8)
    image[40:200, 40:200] = COLORS["red"]
    image[240:290, 240:290] = COLORS["red"]
    return image


def test_specks_are_left_out_where_that_is_asked_for(client: TestClient) -> None:
    data = uri(encode(specks(), "png"))
    for config in (BRUSH, POLYGON):
        (all_of_it,) = predicted(client, asking(data, config=config))
        config = config.replace('toName="image"', 'toName="image" tessera_min_area="6000"')
        (large,) = predicted(client, asking(data, config=config))
        red = [
            sum(mask_of(one).sum() for one in found["result"] if "red" in str(one["value"]))
            for found in (all_of_it, large)
        ]
        assert 0 < red[0] - red[1] < 6000


def click(x: float, y: float, label: str = "red", **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]}
    return {
        "type": "keypointlabels", "to_name": "image", "from_name": "point", "value": value, "original_width": 100,
        "original_height": 60, **more,
    }  # fmt: skip


def test_clicks_make_a_mask_of_what_is_like_them(client: TestClient) -> None:
    (answer,) = predicted(client, asking(context={"result": [click(5, 50, "white")]}))
    (region,) = answer["result"]
    assert region["value"]["brushlabels"] == ["white"]
    cosines = labels(client.post("/similar?x=5&y=30&format=npy", content=PNG))
    assert (mask_of(region) == (cosines >= 0.5)).all()
    assert region["score"] == pytest.approx(cosines[cosines >= 0.5].mean(), abs=1e-3)
    two = [click(5, 50), click(95, 50), click(50, 50, is_positive=0)]
    (region,) = predicted(client, asking(context={"result": two}))[0]["result"]
    at = [labels(client.post(f"/similar?x={x}&y=30&format=npy", content=PNG)) for x in (5, 95, 50)]
    meant = np.maximum(at[0], at[1])
    assert (mask_of(region) == ((meant >= 0.5) & (meant > at[2]))).all()


def test_a_place_that_is_meant_and_is_not_makes_none(client: TestClient) -> None:
    context = {"result": [click(5, 50), click(5, 50, is_positive=0)]}
    (answer,) = predicted(client, asking(context=context))
    assert answer["result"] == []
    assert "nothing is more like" in answer["warnings"][0]
    answer = client.post("/predict", json=asking(uri(), uri(), context=context))
    assert answer.status_code == 422
    assert "there are 2" in answer.json()["error"]


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"result": [click(5, 50, "car")]}, "no label 'car'"),
        ({"result": [click(5, 500)]}, "a click is a result"),
        ({"result": [{**click(5, 50), "value": None}]}, "a click is a result"),
        ({"result": [click(5, 50, is_positive=0)]}, "of what is meant"),
        ({"result": [click(5, 50, to_name="other")]}, "clicks on 'other'"),
    ],
    ids=range(5),
)
def test_a_click_that_means_nothing_is_refused(client: TestClient, context: Any, said: str) -> None:
    answer = client.post("/predict", content=json.dumps(asking(context=context)))
    told = answer.json()["error"] if answer.status_code == 422 else answer.json()["results"][0]["error"]
    assert said in told


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, '"tasks" is a list'),
        (b"{", 400, "no JSON"),
        (b"[]", 400, "no object"),
        (b'{"tasks": []}', 400, '"tasks" is a list'),
        (b'{"tasks": [{}]}', 422, "'label_config' is missing, or no text"),
        (b'{"tasks": [{}], "label_config": "<View/>"}', 422, "no image is labeled"),
        (b'{"tasks": [' + b"{}," * 1000 + b'{}], "label_config": "<View/>"}', 422, "1000 are the most"),
    ],
    ids=range(7),
)
@pytest.mark.parametrize("root", ["", "/label-studio"])
def test_refusals_are_in_its_shape(client: TestClient, body: bytes, status: int, said: str, root: str) -> None:
    answer = client.post(f"{root}/predict", content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert said in answer.json()["error"]


class Leisurely(FakeEngine):
    """Takes its time for an image."""

    def __call__(self, pixels: Any, *, code: bool = False) -> Prediction:
        time.sleep(0.15)
        return super().__call__(pixels, code=code)


def test_a_batch_that_takes_too_long_has_what_is_done(serve: Serve) -> None:
    with serve(lambda bundle: Leisurely(), timeout_s=0.9, cache_bytes=0) as client:
        images = [uri(encode(bands(60, 100 + i), "png")) for i in range(8)]
        answers = predicted(client, asking(*images))
    done = [answer for answer in answers if answer["result"]]
    late = [answer for answer in answers if not answer["result"]]
    assert done
    assert late
    assert all("asked for again" in answer["error"] or "not ready" in answer["error"] for answer in late)


def test_keys_come_as_basic_authentication(serve: Serve) -> None:
    with serve(keys="anna=secret-of-anna-12345") as client:
        assert client.get("/health").status_code == 200
        answer = client.post("/setup", json={})
        assert answer.status_code == 401
        assert "key" in answer.json()["error"]
        for user, password in [("anyone", "secret-of-anna-12345"), ("secret-of-anna-12345", "")]:
            assert client.post("/setup", json={}, auth=(user, password)).status_code == 200
        assert client.post("/predict", json=asking(), auth=("anna", "wrong")).status_code == 401
