"""What is counted of an answer besides the answer; and what is said of pixels that hold no data."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.io.samples import Choice, Decoded
from tests.service.answers import PHOTO, PNG, labels, problem
from tests.service.fakes import files_show
from tests.tiny import bands

RIGHT = np.zeros(PHOTO.shape[:2], bool)
RIGHT[:, 50:] = True  # half of blue, white, black
HALF = np.where(RIGHT[..., None], PHOTO, 255).astype(np.uint8)
WARNING = "a mask left something out"


def half(data: bytes, choice: Choice) -> Decoded:
    return Decoded(HALF, RIGHT, warnings=(WARNING,), pages=3, orientation=6)


@pytest.fixture
def client(serve: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server to which every file is the photo whose left half holds no data."""
    files_show(monkeypatch, half)
    with serve() as ready:
        yield ready


def counted(client: Any) -> int:
    return int(metric(client, "tessera_margin_count"))


def metric(client: Any, name: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.split()[-1]) for line in lines)


def label_map(answer: Any) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["label_map"]["data"]))))


def test_the_margin_of_every_image_is_counted_whatever_is_asked_for(serve: Any) -> None:
    with serve() as client:
        for images, query in enumerate(("format=png", "format=overlay", "", "confidence=true", "tile=always"), 1):
            assert client.post(f"/segment?{query}", content=PNG).status_code == 200
            assert counted(client) == images
        assert metric(client, "tessera_margin_sum") > 0


@pytest.mark.parametrize("nodata", ["fill", "keep"])
def test_what_holds_no_data_is_in_no_cluster(client: Any, nodata: str) -> None:
    answer = client.post(f"/segment?nodata={nodata}", content=PNG).json()
    assert (answer["valid_fraction"], answer["pages"], answer["orientation"]) == (0.5, 3, 6)
    assert answer["warnings"] == [WARNING]
    assert (answer["width"], answer["height"]) == (100, 60)
    clusters = {c["name"]: c for c in answer["clusters"]}
    assert sum(c["pixels"] for c in clusters.values()) == RIGHT.sum()
    assert sum(c["fraction"] for c in clusters.values()) == pytest.approx(1)
    assert clusters["black"]["fraction"] == pytest.approx(0.4, abs=0.02)
    assert min(c["bbox"][0] for c in clusters.values()) == 50
    assert "red" not in clusters


def test_fill_has_labels_everywhere_and_keep_has_none_there_in_every_format(client: Any) -> None:
    filled = labels(client.post("/segment?format=npy", content=PNG))
    assert filled.max() < 5
    kept = labels(client.post("/segment?format=npy&nodata=keep", content=PNG))
    assert (kept == np.where(RIGHT, filled, 255)).all()
    for format in ("png", "color"):
        picture = Image.open(io.BytesIO(client.post(f"/segment?format={format}&nodata=keep", content=PNG).content))
        assert picture.mode == "P"
        assert (np.asarray(picture) == kept).all()
    assert ((np.asarray(picture.convert("RGBA"))[..., 3] == 255) == RIGHT).all()
    assert (label_map(client.post("/segment?nodata=keep", content=PNG)) == kept).all()
    assert (label_map(client.post("/segment", content=PNG)) == filled).all()
    shown = client.post("/segment?format=overlay&alpha=1&nodata=keep", content=PNG, headers={"accept": "image/webp"})
    painted = np.asarray(Image.open(io.BytesIO(shown.content)))
    assert (painted[:, :40] > 250).all()
    assert (painted[:, 90] < 20).all()


@pytest.mark.parametrize("options", ["k=2", "crf=fast", "crf=true", "crf=fast&crf_size=source", "k=2&only=0"])
def test_no_data_stays_no_data_whatever_else_is_asked(client: Any, options: str) -> None:
    kept = labels(client.post(f"/segment?format=npy&nodata=keep&{options}", content=PNG))
    assert ((kept == 255) == ~RIGHT).all()
    filled = labels(client.post(f"/segment?format=npy&{options}", content=PNG))
    assert (kept[RIGHT] == filled[RIGHT]).all()
    assert filled.max() < 5


def test_clusters_merged_by_hand_leave_no_data_alone(client: Any) -> None:
    assert client.patch("/clusters/4", json={"merged_into": 2}).status_code == 200
    kept = labels(client.post("/segment?format=npy&nodata=keep", content=PNG))
    assert set(kept[RIGHT].tolist()) == {2, 3}
    assert (kept[~RIGHT] == 255).all()


def test_metrics_and_drift_count_what_holds_data(client: Any) -> None:
    for _ in range(50):
        assert client.post("/segment", content=PNG).status_code == 200
    assert metric(client, "tessera_cluster_pixels_total") == 50 * RIGHT.sum()
    assert metric(client, 'tessera_cluster_pixels_total{cluster="0"') == 0
    drift = client.get("/models/tiny").json()["drift"]
    shares = np.array([c["fraction"] for c in sorted(client.post("/segment", content=PNG).json()["clusters"],
                                                     key=lambda c: c["id"])])  # fmt: skip
    assert drift == pytest.approx((np.abs(shares - 0.2).sum() + 0.4) / 2, abs=1e-6)


def test_the_margin_is_that_of_what_holds_data(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image whose invalid half the model is sure of, and one where it is not, have one margin."""
    means = []
    for rubbish in ((230, 30, 30), (128, 128, 128)):
        image = bands(64, 96, (2, 2))
        image[:, :48] = rubbish
        valid = np.zeros((64, 96), bool)
        valid[:, 56:] = True
        files_show(monkeypatch, lambda data, choice, image=image, valid=valid: Decoded(image, valid))
        with serve() as client:
            assert client.post("/segment", content=PNG).status_code == 200
            means.append(metric(client, "tessera_margin_sum"))
    assert means[0] == pytest.approx(means[1], abs=1e-6)
    assert means[0] > 0.3


def test_the_confidence_of_what_holds_no_data_is_none(client: Any) -> None:
    encoded = client.post("/segment?confidence=true&nodata=keep", content=PNG).json()["confidence_map"]["data"]
    confidence = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert (confidence[:, :50] == 0).all()
    assert (confidence[:, 90] > 0).all()


def test_an_answer_from_the_cache_says_the_same(client: Any) -> None:
    first, second = (client.post("/segment", content=PNG).json() for _ in range(2))
    assert metric(client, "tessera_cache_hits_total") == 1
    assert {**first, "timings_ms": 0} == {**second, "timings_ms": 0}
    assert second["valid_fraction"] == 0.5


def test_an_image_without_any_data_has_no_clusters(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files_show(
        monkeypatch, lambda data, choice: Decoded(np.full((60, 100, 3), 255, np.uint8), np.zeros((60, 100), bool))
    )
    with serve() as client:
        answer = client.post("/segment", content=PNG).json()
        assert (answer["clusters"], answer["valid_fraction"]) == ([], 0.0)
        assert "no pixel" in answer["warnings"][0]
        for format in ("png", "overlay", "color", "npy"):
            told = client.post(f"/segment?format={format}&nodata=keep", content=PNG)
            assert told.status_code == 200
            assert "no pixel" in told.headers["x-warning"]
        assert counted(client) == 0
        assert metric(client, "tessera_images_total") == 5
    with serve() as client:
        assert client.post("/segment?crf=true", content=PNG).json()["clusters"] == []


def test_what_json_says_is_in_the_head_of_other_answers(client: Any) -> None:
    for ask in ("/segment?format=png", "/similar?x=90&y=3"):
        answer = client.post(ask, content=PNG)
        assert (answer.headers["x-orientation"], answer.headers["x-warning"]) == ("6", WARNING)


def test_nothing_is_like_a_pixel_that_holds_no_data(client: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "holds no data" in problem(client.post("/similar?x=10&y=3", content=PNG), 422)
    assert "outside" in problem(client.post("/similar?x=100&y=3", content=PNG), 422)
    cosines = labels(client.post("/similar?x=90&y=3&format=npy", content=PNG))
    files_show(monkeypatch, lambda data, choice: Decoded(HALF))
    with serve() as other:
        assert (labels(other.post("/similar?x=90&y=3&format=npy", content=PNG)) == cosines).all()
