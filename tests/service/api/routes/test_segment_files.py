"""POST /segment: what every file says alike of names, merges, levels, no data and doubt."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.io.encode import encode
from tests.service.answers import PHOTO, PNG, labels, problem
from tests.service.formats.test_label_files import READERS
from tests.service.server import Serve

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11


def every(client: TestClient, query: str, photo: bytes = PNG) -> np.ndarray[Any, Any]:
    """The label map that all formats agree on."""
    found = {}
    for name, read in READERS.items():
        answer = client.post(f"/segment?format={name}&{query}", content=photo)
        assert answer.status_code == 200, answer.text
        found[name] = read(answer.content)
    assert all((found[name] == found["npy"]).all() for name in found)
    return found["npy"]


def margins(client: TestClient, query: str = "") -> np.ndarray[Any, Any]:
    answer = client.post(f"/segment?format=confidence&{query}", content=PNG)
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_margins_are_those_of_json(client: TestClient) -> None:
    answer = client.post("/segment?confidence=true", content=PNG).json()
    assert (
        margins(client) == np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["confidence_map"]["data"]))))
    ).all()


def test_merged_clusters_and_levels_are_the_same_in_every_format(serve: Serve) -> None:
    with serve() as client:
        before = every(client, "")
        client.patch("/clusters/3", json={"merged_into": 0})
        client.patch("/clusters/1", json={"hidden": True, "name": "meadow", "color": "#123456"})
        assert (every(client, "") == np.where(before == 3, 0, before)).all()
        answers = {name: client.post(f"/segment?format={name}", content=PNG).json() for name in ("json", "rle", "coco")}
        present = answers["json"]["clusters"]
        assert [{k: v for k, v in c.items() if k != "rle"} for c in answers["rle"]["clusters"]] == present
        (meadow,) = (c for c in answers["coco"]["categories"] if c["cluster_id"] == 1)
        assert (meadow["name"], meadow["color"], meadow["hidden"]) == ("meadow", [0x12, 0x34, 0x56], True)
        assert 3 not in [c["cluster_id"] for c in answers["coco"]["categories"]]
        polygons = client.post("/segment", content=PNG, headers={"accept": "application/geo+json"}).json()
        assert {(f["properties"]["name"], f["properties"].get("hidden")) for f in polygons["features"]} >= {
            ("meadow", True)
        }
        assert polygons["clusters"] == present
        for cluster in present:
            own = [f["properties"] for f in polygons["features"] if f["properties"]["cluster_id"] == cluster["id"]]
            weighed = sum(p["score"] * p["pixels"] for p in own) / cluster["pixels"]
            assert weighed == pytest.approx(cluster["confidence"], abs=2e-4)


def test_levels_are_the_same_in_every_format(client: TestClient) -> None:
    assert set(np.unique(every(client, "k=2"))) == {3, 4}


def test_pixels_without_data_and_those_in_doubt_are_told_apart(client: TestClient) -> None:
    opacity = np.full((60, 100, 1), 255, np.uint8)
    opacity[:, :30] = 0
    photo = encode(np.concatenate([PHOTO, opacity], axis=2), "png")
    kept = every(client, "nodata=keep", photo)
    assert ((kept == 255) == (np.arange(100) < 30)).all()
    every(client, "nodata=fill", photo)
    doubted = every(client, "nodata=keep&unknown=0.3", photo)
    answer = client.post("/segment?nodata=keep&unknown=0.3", content=photo).json()
    assert answer["valid_fraction"] == pytest.approx(0.7)
    assert answer["unknown_fraction"] == pytest.approx(((doubted == 255) & (kept != 255)).mean())
    assert 0 < answer["unknown_fraction"] < 0.5


def test_what_is_below_the_margin_is_unknown_everywhere(client: TestClient) -> None:
    plain, margin = every(client, ""), margins(client)
    doubted = every(client, "unknown=0.4")
    assert (doubted[margin > 0.4 * 255 + 1] != 255).all()
    assert (doubted[margin < 0.4 * 255 - 1] == 255).all()
    assert (doubted[doubted != 255] == plain[doubted != 255]).all()
    answer = client.post("/segment?unknown=0.4", content=PNG).json()
    assert (answer["valid_fraction"], answer["unknown_fraction"]) == (1, pytest.approx((doubted == 255).mean()))
    assert sum(c["fraction"] for c in answer["clusters"]) == pytest.approx(1)
    assert {c["id"]: c["pixels"] for c in answer["clusters"]} == {
        i: (doubted == i).sum() for i in np.unique(doubted) if i != 255
    }
    drawn = np.asarray(
        Image.open(io.BytesIO(client.post("/segment?format=color&unknown=0.4", content=PNG).content)).convert("RGBA")
    )
    assert ((drawn[..., 3] == 0) == (doubted == 255)).all()
    merged = every(client, "unknown=0.4&k=3")
    assert ((merged == 255) == (doubted == 255)).all()
    assert (every(client, "unknown=0&id_offset=0") == plain).all()
    client.post("/segment?unknown=0.4&crf=fast", content=PNG)
    assert (every(client, "") == plain).all()


def test_where_nothing_is_sure_there_are_no_clusters_and_a_warning(client: TestClient) -> None:
    pink = encode(np.full((40, 40, 3), (200, 120, 120), np.uint8), "png")
    answer = client.post("/segment?unknown=1", content=pink).json()
    assert (answer["clusters"], answer["unknown_fraction"]) == ([], 1)
    assert any("unknown" in warning for warning in answer["warnings"])
    assert (every(client, "unknown=1", pink) == 255).all()


def test_ids_that_are_one_more_say_so(client: TestClient) -> None:
    plain = labels(client.post("/segment?format=npy", content=PNG))
    for name in ("png", "npy"):
        answer = client.post(f"/segment?format={name}&id_offset=1&palette=false", content=PNG)
        assert answer.headers["x-id-offset"] == "1"
        assert (READERS[name](answer.content) == plain + 1).all()
    assert Image.open(io.BytesIO(client.post("/segment?format=png&palette=false", content=PNG).content)).mode == "L"
    assert "x-id-offset" not in client.post("/segment?format=color&id_offset=1", content=PNG).headers
    assert "id_offset" in client.post("/segment?format=rle&id_offset=1", content=PNG).json()["warnings"][0]


def test_polygons_that_are_too_many_are_422(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.polygons.MOST_REGIONS", 2)
    assert "min_area" in problem(client.post("/segment?format=geojson", content=PNG), 422)


def test_formats_are_those_of_a_zip(client: TestClient) -> None:
    answer = client.post("/segment?formats=png", content=PNG)
    assert (answer.status_code, "format=zip" in answer.json()["detail"]) == (422, True)
