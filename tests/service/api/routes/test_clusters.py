"""GET and PATCH /clusters over HTTP."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.io.encode import encode
from tests.tiny import CENTROIDS, bands

PNG = encode(bands(), "png")


def test_the_list(client: TestClient) -> None:
    body = client.get("/clusters").json()
    assert list(body) == ["model", "digest", "k", "levels", "clusters"]
    assert (body["model"], body["k"], body["levels"]) == ("tiny", 5, [2, 3, 4, 5])
    assert [c["id"] for c in body["clusters"]] == [0, 1, 2, 3, 4]
    assert sum(c["fraction"] for c in body["clusters"]) == pytest.approx(1)
    for c in body["clusters"]:
        assert list(c) == ["id", "name", "color", "fraction", "hidden", "merged_into", "neighbors", "exemplars"]
        assert len(c["neighbors"]) == 3
        assert client.get(f"/clusters/{c['id']}").json() == c
        for path in c["exemplars"]:
            answer = client.get(path)
            assert answer.headers["content-type"] == "image/webp"
            assert Image.open(io.BytesIO(answer.content)).size == (24, 24)


def test_centroids_only_when_asked_for(client: TestClient) -> None:
    body = client.get("/clusters?include=centroids").json()
    np.testing.assert_allclose([c["centroid"] for c in body["clusters"]], CENTROIDS, atol=1e-6)
    assert "centroid" in client.get("/clusters/3?include=centroids").json()


def test_the_tree(client: TestClient) -> None:
    merges = client.get("/clusters/tree").json()["merges"]
    assert [m["k"] for m in merges] == [4, 3, 2]
    assert merges[0] == {"k": 4, "merge": [1, 2], "into": 1, "height": 0.9}


@pytest.mark.parametrize(
    "path",
    [
        "/clusters/5",
        "/clusters/-1",
        "/clusters/x",
        "/clusters/0/exemplars/2",
        "/clusters/9/exemplars/0",
        "/clusters?model=x",
    ],
)
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_every_format_shows_a_change_from_the_next_answer_on_and_after_a_restart(serve: Any) -> None:
    def look(client: TestClient) -> tuple[Any, Any, Any, Any, Any]:
        body = client.post("/segment", content=PNG).json()
        png = Image.open(io.BytesIO(client.post("/segment?format=png", content=PNG).content))
        npy = np.load(io.BytesIO(client.post("/segment?format=npy", content=PNG).content))
        color = Image.open(io.BytesIO(client.post("/segment?format=color", content=PNG).content)).convert("RGB")
        over = np.asarray(Image.open(io.BytesIO(client.post("/segment?format=overlay&alpha=1", content=PNG).content)))
        return body, png, npy, np.asarray(color), over

    with serve() as client:
        answer = client.patch("/clusters/1", json={"name": "grass", "color": "#ff00ff"})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["name"], answer.json()["color"]) == ("grass", "#ff00ff")
        assert client.patch("/clusters/2", json={"merged_into": 1}).json()["merged_into"] == 1
    with serve() as client:
        assert client.get("/clusters/1").json()["name"] == "grass"
        body, png, npy, color, over = look(client)
        (grass,) = (c for c in body["clusters"] if c["id"] == 1)
        assert (grass["name"], grass["color"]) == ("grass", "#ff00ff")
        assert 2 not in [c["id"] for c in body["clusters"]]
        assert grass["pixels"] == (npy == 1).sum() == (np.asarray(png) == 1).sum()
        assert png.getpalette()[3:6] == [255, 0, 255]
        assert (color[npy == 1] == (255, 0, 255)).all()
        assert np.abs(over[30, 50].astype(int) - (255, 0, 255)).max() < 20
        # Fractions are shares of the training pixels: merging moves none of them.
        assert sum(c["fraction"] for c in client.get("/clusters").json()["clusters"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("send", "status", "says"),
    [
        ({"json": {}}, 422, "nothing to change"),
        ({"content": b"{"}, 400, "JSON"),
        ({"content": b""}, 400, "JSON"),
        ({"json": []}, 422, "body"),
        ({"json": {"nam": "x"}}, 422, "did you mean 'name'"),
        ({"json": {"name": ""}}, 422, "1 to 80"),
        ({"json": {"name": "a" * 81}}, 422, "1 to 80"),
        ({"json": {"name": "two\nlines"}}, 422, "one line"),
        ({"json": {"color": "red"}}, 422, "#rrggbb"),
        ({"json": {"hidden": 7}}, 422, "hidden"),
        ({"json": {"merged_into": 99}}, 422, "0 to 4"),
        ({"json": {"merged_into": 0}}, 422, "circle"),
        ({"content": bytes(70_000)}, 413, "MiB"),
    ],
)
def test_a_bad_change_is_told_what_to_change(client: TestClient, send: dict[str, Any], status: int, says: str) -> None:
    answer = client.patch("/clusters/0", **send)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]


def test_a_second_model_answers_under_its_name(serve: Any, tiny_bundle: Path, make_bundle: Callable[..., Path]) -> None:
    with serve(bundles=(tiny_bundle, make_bundle("other"))) as client:
        other = client.get("/clusters?model=other").json()
        assert other["model"] == "other"
        path = other["clusters"][0]["exemplars"][0]
        assert "model=other@" in path
        assert client.get(path).headers["x-model"] == f"other@{other['digest']}"
        client.patch("/clusters/0?model=other", json={"name": "brick"})
        assert client.get("/clusters/0").json()["name"] == "red"
        assert client.post("/segment?model=other", content=PNG).json()["model"] == "other"
        ref = f"other@{other['digest']}"
        assert client.post(f"/segment?model={ref}", content=PNG).headers["x-model"] == ref


def test_an_exemplar_whose_folder_changed_is_404(serve: Any, make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle("moved")
    with serve(bundles=(folder,)) as client:
        folder.rename(folder.with_name("elsewhere"))
        answer = client.get("/clusters/0/exemplars/0")
        assert answer.status_code == 404
        assert "reload it" in answer.json()["detail"]
