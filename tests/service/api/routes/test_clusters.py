"""GET and PATCH /clusters over HTTP."""

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
        own = ["default_name", "default_color"]
        assert list(c) == ["id", "name", "color", "fraction", "hidden", "merged_into", "neighbors", "exemplars", *own]
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
        assert answer.json()["default_name"] == "green"
        assert answer.json()["default_color"] != "#ff00ff"
        assert client.patch("/clusters/2", json={"merged_into": 1}).json()["merged_into"] == 1
    with serve() as client:
        assert client.get("/clusters/1").json()["name"] == "grass"
        body, png, npy, color, over = look(client)
        (grass,) = (c for c in body["clusters"] if c["id"] == 1)
        assert (grass["name"], grass["color"]) == ("grass", "#ff00ff")
        assert 2 not in [c["id"] for c in body["clusters"]]
        apart = np.load(io.BytesIO(client.post("/segment?format=npy&merged=false", content=PNG).content))
        assert (((apart == 1) | (apart == 2)) == (npy == 1)).all()
        assert (apart == 2).any()
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
        ({"json": {"name": "road\u202e"}}, 422, "U+202E"),
        ({"json": {"name": "ro\u200bad"}}, 422, "U+200B"),
        ({"content": b'{"name": "\\ud800"}'}, 400, "JSON"),
        ({"json": {"name": 7}}, 422, "string"),
        ({"json": {"name": ["road"]}}, 422, "string"),
        ({"json": {"hidden": 1}}, 422, "boolean"),
        ({"json": {"hidden": "true"}}, 422, "boolean"),
        ({"json": {"merged_into": True}}, 422, "integer"),
        ({"json": {"merged_into": "1"}}, 422, "integer"),
        ({"json": {"merged_into": 1.0}}, 422, "integer"),
        ({"json": {"merged_into": -1}}, 422, "greater"),
        ({"json": {"merged_into": 2**70}}, 422, "merged_into"),
        ({"content": b'{"name": "road", "name": "lake"}'}, 422, "name: given twice"),
        ({"content": b'{"name": "road", "n\\u0061me": "lake"}'}, 422, "name: given twice"),
        ({"json": {"color": "red"}}, 422, "#rrggbb"),
        ({"json": {"hidden": 7}}, 422, "hidden"),
        ({"json": {"merged_into": 99}}, 422, "0 to 4"),
        ({"json": {"merged_into": 0}}, 422, "circle"),
        ({"content": bytes(70_000)}, 413, "64 KiB"),
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


def test_who_has_the_clusters_gets_304_until_they_change(serve: Any) -> None:
    with serve() as client:
        for path in ("/clusters", "/clusters/1", "/clusters/1?include=centroids", "/clusters/tree"):
            got = client.get(path)
            tag = got.headers["etag"]
            assert got.headers["cache-control"] == "no-cache"
            again = client.get(path, headers={"if-none-match": f'W/"x", {tag}'})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert client.head(path, headers={"if-none-match": tag}).status_code == 304
            refused = client.get(path, headers={"if-match": '"x"'})
            assert (refused.status_code, refused.json()["type"]) == (412, "urn:tessera:precondition-failed")
            assert client.patch("/clusters/1", json={"name": f"seen at {path[:20]}"}).status_code == 200
            after = client.get(path, headers={"if-none-match": tag})
            assert after.status_code == (304 if path == "/clusters/tree" else 200)
            client.patch("/clusters/1", json={"name": None})
            assert client.get(path).headers["etag"] == tag  # the same answer once more


def test_a_change_is_made_only_to_what_was_seen(serve: Any) -> None:
    with serve() as client:
        seen = client.get("/clusters/1").headers["etag"]
        first = client.patch("/clusters/1", json={"name": "grass"}, headers={"if-match": seen})
        assert first.status_code == 200
        assert first.headers["etag"] == client.get("/clusters/1").headers["etag"] != seen
        late = client.patch("/clusters/1", json={"name": "lake"}, headers={"if-match": seen})
        assert late.status_code == 412
        assert first.headers["etag"] in late.json()["detail"]
        weak = client.patch("/clusters/1", json={"name": "lake"}, headers={"if-match": f"W/{first.headers['etag']}"})
        assert weak.status_code == 412
        assert client.get("/clusters/1").json()["name"] == "grass"
        circle = client.patch("/clusters/1", json={"merged_into": 1}, headers={"if-match": seen})
        assert circle.status_code == 422  # it would be refused anyway, whatever was seen
        given = {"if-match": f'"x", {first.headers["etag"]}'}
        assert client.patch("/clusters/1", json={"name": "lake"}, headers=given).status_code == 200
        assert client.patch("/clusters/1", json={"name": "sky"}, headers={"if-match": "*"}).status_code == 200
        assert client.patch("/clusters/9", json={"name": "sky"}, headers={"if-match": "*"}).status_code == 404


def test_two_servers_on_one_folder_show_each_others_changes(serve: Any) -> None:
    with serve() as one, serve() as other:
        assert one.patch("/clusters/1", json={"name": "grass"}).status_code == 200
        assert other.patch("/clusters/1", json={"color": "#00ff00"}).status_code == 200
        assert other.patch("/clusters/2", json={"merged_into": 1}).status_code == 200
        assert "circle" in one.patch("/clusters/1", json={"merged_into": 2}).json()["detail"]
        for path in ("/clusters", "/clusters/1"):
            answers = [client.get(path) for client in (one, other)]
            assert answers[0].content == answers[1].content
            assert answers[0].headers["etag"] == answers[1].headers["etag"]
        assert (answers[0].json()["name"], answers[0].json()["color"]) == ("grass", "#00ff00")
        seen = answers[0].headers["etag"]
        assert one.patch("/clusters/1", json={"hidden": True}, headers={"if-match": seen}).status_code == 200
        assert other.patch("/clusters/1", json={"name": "lake"}, headers={"if-match": seen}).status_code == 412
        assert other.patch("/clusters/0", json={"name": "brick"}).status_code == 200
        deadline = time.monotonic() + 10  # images meet it within about a second, though nobody asks for the clusters
        while "brick" not in one.post("/segment", content=PNG).text:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_of_changes_to_what_was_seen_one_wins(serve: Any) -> None:
    with serve() as one, serve() as other, ThreadPoolExecutor(8) as people:
        seen = one.get("/clusters/1").headers["etag"]

        def change(i: int) -> int:
            client = (one, other)[i % 2]
            headers = {"if-match": seen}
            return int(client.patch("/clusters/1", json={"name": f"of {i}"}, headers=headers).status_code)

        assert sorted(people.map(change, range(8))) == [200] + [412] * 7


def test_what_cannot_be_kept_is_refused_and_not_shown(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with serve(state=tmp_path / "file") as client:
        assert client.get("/healthz").json()["names_kept"] is False
        answer = client.patch("/clusters/0", json={"name": "brick"})
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:tessera:not-kept")
        assert "TESSERA_STATE" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text
        assert client.get("/clusters/0").json()["name"] == "red"
        assert client.post("/segment", content=PNG).status_code == 200
        (tmp_path / "file").unlink()
        deadline = time.monotonic() + 10  # by itself, though nobody changes anything
        while not client.get("/healthz").json()["names_kept"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert client.patch("/clusters/0", json={"name": "brick"}).status_code == 200
