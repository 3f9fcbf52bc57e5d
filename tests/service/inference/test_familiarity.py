"""`familiarity` in every answer: what it says, that options do not change it, and that older bundles say nothing."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.io.encode import encode
from models.io.samples import Choice, Decoded
from models.manifest import Familiarity
from service.formats import registry
from tests.service.answers import PHOTO, PNG
from tests.service.fakes import files_show
from tests.service.server import server_of
from tests.tiny import bands, write_tiny_bundle

KNOWN = Familiarity(quantiles=tuple(np.linspace(0.0, 0.8, 41).round(3).tolist()), threshold=0.2)
DOCUMENTS = ("json", "rle", "geojson")
RED = encode(bands(order=(0,)), "png")  # one cluster of five: unlike what was trained on


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("known")
    with server_of(write_tiny_bundle(folder / "tiny", familiarity=KNOWN).path, folder / "state")() as ready:
        yield ready


def told(client: Any, query: str = "", content: bytes = PNG) -> tuple[float | None, bool | None]:
    answer = client.post(f"/segment?{query}", content=content)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    return document["familiarity"], document["familiar"]


def test_what_shows_all_clusters_is_familiar_and_one_color_is_not(client: Any) -> None:
    share, familiar = told(client)
    assert share is not None
    assert 0.3 < share <= 1
    assert familiar is True
    lone, unlike = told(client, content=RED)
    assert lone is not None
    assert lone < 0.25 * share
    assert unlike is False


@pytest.mark.parametrize(
    "query", ["k=2", "only=1", "confidence=true", "unknown=0.9", "crf=fast", "nodata=keep", "alpha=1"]
)
def test_options_do_not_change_it(client: Any, query: str) -> None:
    assert told(client, query) == told(client)


def test_classes_that_people_taught_do_not_change_it(client: Any) -> None:
    assert client.post("/classes", json={"name": "warm"}).status_code == 201
    assert client.post("/classes/0/examples?x=5&y=30", content=PNG).status_code == 201
    for query in ("", "&confidence=true", "&crf=fast", "&tile=always"):
        assert told(client, f"classes=true{query}") == told(client, query.lstrip("&"))


def test_windows_of_an_image_no_larger_than_one_say_the_same(client: Any) -> None:
    small = encode(bands(64, 64), "png")
    assert told(client, "tile=always", small) == told(client, content=small)
    assert told(client, "tile=always", encode(bands(200, 333), "png"))[1] is True


def test_every_format_says_it_in_the_document_or_in_the_head(client: Any) -> None:
    share, familiar = told(client)
    for format in DOCUMENTS:
        document = json.loads(client.post(f"/segment?format={format}", content=PNG).content)
        assert (document["familiarity"], document["familiar"]) == (share, familiar), format
    info = client.post("/segment?format=coco", content=PNG).json()["info"]
    assert (info["familiarity"], info["familiar"]) == (share, familiar)
    for format in set(registry.names()) - {"json"}:
        answer = client.post(f"/segment?format={format}", content=PNG)
        assert float(answer.headers["x-familiarity"]) == share, format
    with zipfile.ZipFile(io.BytesIO(client.post("/segment?format=zip", content=PNG).content)) as archive:
        assert json.loads(archive.read("segmentation.json"))["familiarity"] == share
    several = client.post("/segment", files=[("image", PNG), ("image", RED)]).json()["results"]
    assert [one["familiar"] for one in several] == [True, False]


def test_what_holds_no_data_does_not_count(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rubbish in (0, 128):
        image, valid = PHOTO.copy(), np.ones(PHOTO.shape[:2], bool)
        image[:, :50], valid[:, :60] = rubbish, False
        files_show(monkeypatch, lambda data, choice, image=image, valid=valid: Decoded(image, valid))
        found.append(told(client, content=PNG + bytes([rubbish])))
    assert found[0] == pytest.approx(found[1], abs=0.02)

    def nothing(data: bytes, choice: Choice) -> Decoded:
        return Decoded(PHOTO, np.zeros(PHOTO.shape[:2], bool))

    files_show(monkeypatch, nothing)
    assert told(client, content=PNG + b"x") == (None, None)
    assert "x-familiarity" not in client.post("/segment?format=png", content=PNG + b"x").headers


def test_a_share_of_strangers_is_told_once_there_are_enough(client: Any) -> None:
    for _ in range(50):
        assert client.post("/segment?format=png", content=RED).status_code == 200
    assert client.get("/models/tiny").json()["unfamiliar"] > 0.5
    assert 'tessera_unfamiliar_share{model="tiny"} 0.' in client.get("/metrics").text


def test_a_bundle_without_quantiles_says_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    with server_of(tiny_bundle, tmp_path / "state")() as old:
        assert told(old) == (None, None)
        assert "x-familiarity" not in old.post("/segment?format=png", content=PNG).headers
        for _ in range(50):
            old.post("/segment?format=png", content=PNG)
        assert old.get("/models/tiny").json()["unfamiliar"] is None
        assert "tessera_unfamiliar_share{" not in old.get("/metrics").text
