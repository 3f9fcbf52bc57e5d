"""/classes over HTTP, and answers in classes in place of clusters: every format, pixel for pixel."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.class_file import ClassFile
from models.io.encode import encode
from models.io.png import encode_gray
from service.api.routes import classes as routes
from tests.service.answers import JPEG, PNG, labels, problem
from tests.service.server import Serve, server_of
from tests.tiny import bands

WARM, COLD = (5, 30), (50, 30)  # pixels of the red band and of the blue one


def taught(client: TestClient) -> TestClient:
    """Two classes, 3 and 7: red is the one, blue the other."""
    client.put("/classes/3", json={"name": "warm", "color": "#aa0000", "clusters": [0]})
    client.put("/classes/7", json={"name": "cold", "color": "#0000aa"})
    for id, (x, y) in ((3, WARM), (7, COLD)):
        assert client.post(f"/classes/{id}/examples?x={x}&y={y}", content=PNG).status_code == 201
    return client


@pytest.fixture(scope="module")
def served(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with server_of(tiny_bundle, tmp_path_factory.mktemp("state"))() as client:
        yield taught(client)


def segmented(client: TestClient, query: str = "", body: bytes = PNG) -> Any:
    answer = client.post(f"/segment?classes=true{query}", content=body)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_life(serve: Serve) -> None:
    with serve() as client:
        empty = client.get("/classes")
        assert list(empty.json()) == ["model", "digest", "encoder", "classes", "warnings"]
        assert "POST /classes" in problem(client.post("/segment?classes=true", content=PNG), 422)
        made = client.post("/classes", json={"name": "warm"})
        assert (made.status_code, made.headers["location"], made.json()["id"]) == (201, "/classes/0", 0)
        assert "no class has an example" in problem(client.post("/segment?classes=true", content=PNG), 422)
        assert client.get("/classes", headers={"if-none-match": empty.headers["etag"]}).status_code == 200
        first = client.post("/classes/0/examples?x=5&y=30", content=PNG).json()
        assert (first["class"], first["agrees"], first["classes"][0]["examples"]) == (0, 0.0, 1)
        alone = segmented(client).json()
        assert [c["id"] for c in alone["clusters"]] == [0]
        client.post("/classes", json={"name": "cold"})
        client.post("/classes/1/examples?box=42,0,14,60", content=PNG)
        again = client.post("/classes/0/examples?points=5,30;6,31&negative=false", content=PNG).json()
        assert again["agrees"] == 1.0
        client.post("/classes/0/examples?x=50&y=30&negative=true", content=PNG)
        detail = client.get("/classes/0").json()
        assert (detail["examples"], detail["negatives"], detail["aside"]) == (2, 1, 0)
        assert detail["examples_list"][0]["n"] == first["example"]
        assert detail["examples_list"][0]["at"] == pytest.approx({"x": 0.055, "y": 0.508}, abs=0.001)
        removed = client.delete(f"/classes/0/examples/{first['example']}")
        assert ClassFile.parse(removed.content).classes[0].examples[0].n == first["example"]
        back = client.put("/classes/import", content=removed.content).json()
        assert back["imported"][0]["examples"] > [first["example"]]
        gone = client.delete("/classes/1")
        assert [c["id"] for c in client.get("/classes").json()["classes"]] == [0]
        client.put("/classes/import", content=gone.content)
        assert client.get("/classes/1").json()["examples"] == 1
        exported = client.get("/classes/export")
        assert "classes.json" in exported.headers["content-disposition"]
        before = segmented(client, "&format=npy").content
    with serve() as client:  # it is kept, and an import of all of it changes nothing
        assert client.put("/classes/import?replace=true", content=exported.content).status_code == 200
        assert segmented(client, "&format=npy").content == before


def test_every_format_shows_classes_and_agrees_pixel_for_pixel(served: TestClient) -> None:
    map_ = labels(segmented(served, "&format=npy"))
    assert map_.shape == (60, 100)
    assert set(map_[30, ::10]) == {3, 7}
    assert (map_[30, 5], map_[30, 50]) == (3, 7)
    document = segmented(served).json()
    assert (document["of"], document["k"]) == ("classes", 2)
    assert {c["id"]: (c["name"], c["color"]) for c in document["clusters"]} == {
        3: ("warm", "#aa0000"),
        7: ("cold", "#0000aa"),
    }
    assert {c["id"]: c["pixels"] for c in document["clusters"]} == {i: int((map_ == i).sum()) for i in (3, 7)}
    assert len(document["suggestions"]) == 3
    assert set(document["suggestions"][0]) == {"x", "y", "margin", "between"}
    in_json = Image.open(io.BytesIO(base64.b64decode(document["label_map"]["data"])))
    assert np.array_equal(np.asarray(in_json), map_)
    picture = Image.open(io.BytesIO(segmented(served, "&format=png").content))
    assert np.array_equal(np.asarray(picture), map_)
    rle = segmented(served, "&format=rle").json()
    assert {c["id"]: c["pixels"] for c in rle["clusters"]} == {c["id"]: c["pixels"] for c in document["clusters"]}
    coco = segmented(served, "&format=coco").json()
    assert {c["name"]: c["supercategory"] for c in coco["categories"]} == {"warm": "class", "cold": "class"}
    assert {a["cluster_id"]: a["area"] for a in coco["annotations"]} == {i: int((map_ == i).sum()) for i in (3, 7)}
    geo = segmented(served, "&format=geojson").json()
    assert geo["of"] == "classes"
    assert {f["properties"]["name"] for f in geo["features"]} == {"warm", "cold"}
    assert sum(f["properties"]["pixels"] for f in geo["features"]) == map_.size
    for format in ("overlay", "color", "confidence", "panoptic", "zip"):
        segmented(served, f"&format={format}")
    shifted = labels(segmented(served, "&format=npy&id_offset=1"))
    assert np.array_equal(shifted, map_ + 1)


def test_options_go_with_classes(served: TestClient) -> None:
    map_, document = labels(segmented(served, "&format=npy")), segmented(served, "&unknown=0.9").json()
    sure = labels(segmented(served, "&format=npy&unknown=0.9"))
    assert 0 < (sure == 255).mean() < 1
    assert document["unknown_fraction"] == pytest.approx((sure == 255).mean())
    assert np.array_equal(sure[sure != 255], map_[sure != 255])
    for crf in ("fast", "true"):
        assert set(np.unique(labels(segmented(served, f"&format=npy&crf={crf}")))) == {3, 7}
    whole = Image.open(io.BytesIO(segmented(served, "&format=color&only=7").content)).convert("RGBA")
    assert np.array_equal(np.asarray(whole)[..., 3] > 0, map_ == 7)
    assert "k:" in problem(served.post("/segment?classes=true&k=3", content=PNG), 422)
    assert "there are 3, 7" in problem(served.post("/segment?classes=true&only=4", content=PNG), 422)
    seen = segmented(served, "&tile=always").json()
    assert seen["suggestions"] == []
    in_windows = labels(segmented(served, "&tile=always&format=npy"))
    assert set(np.unique(in_windows)) == {3, 7}
    assert in_windows[30, 50] == 7
    several = served.post("/segment?classes=true", files=[("image", PNG), ("image", JPEG)]).json()["results"]
    assert [answer["of"] for answer in several] == ["classes", "classes"]
    clusters = served.post("/segment", content=PNG).json()
    assert (clusters["of"], clusters["k"]) == ("clusters", 5)
    assert "suggestions" not in clusters


def test_metrics_and_drift_are_of_the_networks_own_clusters(serve: Serve) -> None:
    def counted(client: TestClient) -> dict[str, float]:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("tessera_cluster_pixels")]
        return {line.split('cluster="')[1].split('"')[0]: float(line.split()[-1]) for line in lines}

    with serve() as client:
        client.post("/segment", content=PNG)
        plain = counted(client)
    with serve() as client:
        taught(client)
        segmented(client)
        in_classes = counted(client)
        assert client.app.state.tessera.registry.get(None).drift.images == 1  # type: ignore[attr-defined]
    assert plain.keys() == in_classes.keys() == {"0", "1", "2", "3", "4"}
    assert sum(in_classes.values()) == pytest.approx(6000, abs=3)
    assert all(abs(plain[k] - in_classes[k]) < 600 for k in plain)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "no way"),
        ("x=5", "x, y: a pixel has both"),
        ("x=5&y=5&box=0,0,5,5", "several ways"),
        ("x=100&y=5", "outside of the image's 100×60"),
        ("points=1,1;100,2", "outside"),
        ("points=1,1;", "points"),
        ("box=90,0,20,5", "reaches beyond"),
        ("box=0,0,0,5", "box"),
        ("x=1&y=1&negative=perhaps", "negative"),
        ("x=1&y=1&nothing=1", "not an option"),
    ],
)
def test_a_place_that_is_none_is_refused(served: TestClient, query: str, says: str) -> None:
    assert says in problem(served.post(f"/classes/3/examples?{query}", content=PNG), 422)


def test_masks(served: TestClient) -> None:
    mask = np.zeros((60, 100), np.uint8)

    def sent(data: bytes) -> Any:
        return served.post("/classes/3/examples", files={"image": PNG, "mask": data})

    assert "marks no pixel" in problem(sent(encode_gray(mask)), 422)
    assert "100×60" in problem(sent(encode_gray(mask[:50])), 400)
    assert "no PNG" in problem(sent(JPEG), 400)
    problem(sent(encode_gray(mask)[:60]), 400)
    mask[20:40, 5:15] = 1
    answer = sent(encode_gray(mask)).json()
    assert answer["agrees"] == 1.0
    at = served.get("/classes/3").json()["examples_list"][-1]["at"]
    assert at == pytest.approx({"x": 0.1, "y": 0.5}, abs=1e-3)
    box = served.post("/classes/3/examples?box=5,20,10,20", content=PNG).json()["example"]
    codes = {e.n: e.code for e in ClassFile.parse(served.get("/classes/export").content).classes[0].examples}
    assert codes[box] == codes[answer["example"]]
    for n in (box, answer["example"]):
        served.delete(f"/classes/3/examples/{n}")


def test_places_without_data_are_refused(serve: Serve) -> None:
    holes = np.dstack([bands(), np.full((60, 100), 255, np.uint8)])
    holes[:, :50, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(holes).save(buffer, "TIFF")
    with serve() as client:
        client.post("/classes", json={"name": "a"})
        answer = client.post("/classes/0/examples?x=5&y=5", content=buffer.getvalue())
        assert "no data" in problem(answer, 422)
        assert client.post("/classes/0/examples?x=70&y=5", content=buffer.getvalue()).status_code == 201


def test_what_to_click_next(serve: Serve) -> None:
    with serve() as client:
        assert "nothing is taught" in client.get("/classes/suggest").json()["note"]
        assert "no class" in problem(client.post("/classes/suggest", content=PNG), 422)
        taught(client)
        places = client.get("/classes/suggest?count=2").json()["places"]
        assert len(places) == 2
        assert places[0]["margin"] <= places[1]["margin"]
        assert places[0]["between"] in ([3, 7], [7, 3])
        posted = client.post("/classes/suggest?count=50", content=PNG).json()["places"]
        assert posted[:2] == places
        away = [(a["x"] - b["x"]) ** 2 + (a["y"] - b["y"]) ** 2 for a in posted for b in posted if a is not b]
        assert min(away) >= 12**2
        assert "count" in problem(client.get("/classes/suggest?count=51"), 422)
    with serve(cache_bytes=0) as client:
        segmented(client)
        assert "none of your images" in client.get("/classes/suggest").json()["note"]
        assert client.post("/classes/suggest", content=PNG).json()["places"]


def test_changes_depend_on_what_was_seen(serve: Serve) -> None:
    with serve() as client:
        made = client.post("/classes", json={"name": "a"})
        tag = client.get("/classes/0").headers["etag"]
        assert made.headers["etag"] == tag
        assert client.put("/classes/0", json={"name": "b"}, headers={"if-match": tag}).status_code == 200
        for answer in (
            client.put("/classes/0", json={"name": "c"}, headers={"if-match": tag}),
            client.put("/classes/9", json={"name": "c"}, headers={"if-match": "*"}),
            client.put("/classes/0", json={"name": "c"}, headers={"if-none-match": "*"}),
            client.delete("/classes/0", headers={"if-match": tag}),
            client.post("/classes/0/examples?x=1&y=1", content=PNG, headers={"if-match": tag}),
        ):
            problem(answer, 412)
        assert client.put("/classes/9", json={"name": "c"}, headers={"if-none-match": "*"}).status_code == 200
        listed = client.get("/classes").headers["etag"]
        assert client.get("/classes", headers={"if-none-match": listed}).status_code == 304
        assert client.post("/classes", json={"name": "d"}, headers={"if-match": listed}).status_code == 201
        problem(client.post("/classes", json={"name": "e"}, headers={"if-match": listed}), 412)


def test_keys(serve: Serve) -> None:
    with serve(keys="looker:infer=looks,editor=edits") as client:
        looks, edits = ({"x-api-key": key} for key in ("looks", "edits"))
        assert client.get("/classes", headers=looks).status_code == 200
        problem(client.post("/classes", json={"name": "a"}, headers=looks), 403)
        assert client.post("/classes", json={"name": "a"}, headers=edits).status_code == 201
        for method, path in (("DELETE", "/classes/0"), ("PUT", "/classes/import"), ("POST", "/classes/0/examples")):
            problem(client.request(method, path, headers=looks), 403)
        client.post("/classes/0/examples?x=1&y=1", content=PNG, headers=edits)
        assert client.get("/classes/suggest", headers=looks).json()["places"] == []  # another's images


def test_bad_requests_are_told(served: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = served.get("/classes").content
    for body, says in (
        ({}, "name"),
        ({"name": "x" * 81}, "80"),
        ({"name": "‮evil"}, "has no place in a name"),
        ({"name": "a", "color": "red"}, "rrggbb"),
        ({"name": "a", "clusters": [0, 9]}, "no cluster 9"),
        ({"name": "a", "id": 4}, "not an option"),
    ):
        assert says in problem(served.post("/classes", json=body), 422)
    assert "called 'cold'" in problem(served.post("/classes", json={"name": "cold"}), 409)
    for path in ("/classes/9", "/classes/9/examples/1", "/classes/3/examples/1000"):
        problem(served.delete(path), 404)
    problem(served.post("/classes/9/examples?x=1&y=1", content=PNG), 404)
    problem(served.post("/classes/3/examples?x=1&y=1", content=b"no image"), 400)
    problem(served.put("/classes/255", json={"name": "a"}), 422)
    good = json.loads(served.get("/classes/export").content)
    lone = {"id": 0, "name": "a", "color": "#000000"}
    nowhere = {"n": 1, "code": [0, 0, 0], "at": [0, 0]}
    late = {"n": 1, "code": [0, 0, 1], "at": [0, 0], "added": "9999-12-31T23:59:59-23:59"}
    assert served.put("/classes/import", json={**good, "classes": [{**lone, "examples": [late]}]}).status_code == 200
    assert served.delete("/classes/0").status_code == 200
    for change, says in (
        ({"dim": 4}, "dim is 4"),
        ({"dim": 2, "classes": [{**lone, "examples": [{**nowhere, "code": [1, 2]}]}]}, "codes of this encoder have 3"),
        ({"version": 2}, "version"),
        ({"encoder": "x"}, "encoder"),
        ({"classes": [{**lone, "examples": [nowhere]}]}, "no direction"),
        ({"classes": [{**lone, "clusters": [5]}]}, "no cluster 5"),
    ):
        assert says in problem(served.put("/classes/import", json={**good, **change}), 422)
    assert "JSON" in problem(served.put("/classes/import", content=b"{"), 422)
    monkeypatch.setattr(routes, "MAX_BYTES", 100)
    assert "more than" in problem(served.put("/classes/import", json=good), 413)
    assert served.get("/classes").content == before


def test_a_small_image_of_another_shape_and_encoding(served: TestClient) -> None:
    grown = encode(np.kron(bands(20, 30), np.ones((3, 3, 1), np.uint8)), "jpeg", 95)
    map_ = labels(segmented(served, "&format=npy", grown))
    assert map_.shape == (60, 90)
    assert set(np.unique(map_)) == {3, 7}
