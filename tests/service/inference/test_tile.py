"""`tile=`: who is seen in windows, and that every format then says the same."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.io import MemoryFile

from models.io.encode import encode
from tests.service.answers import labels, problem
from tests.service.server import server_of
from tests.tiny import bands

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8).repeat(8, 0).repeat(8, 1)  # 320×480
FILE = encode(PHOTO, "png")
WARNING = "seen in"


def geotiff(image: np.ndarray, **profile: Any) -> bytes:
    profile = {"height": image.shape[0], "width": image.shape[1], "count": 3, "dtype": image.dtype, **profile}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **profile) as file:
            file.write(image.transpose(2, 0, 1))
        return bytes(memory.getbuffer())


PLACED = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
RASTER = geotiff(PHOTO, **PLACED)


@pytest.fixture(scope="module")
def client(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with server_of(tiny_bundle, tmp_path_factory.mktemp("state"))() as ready:
        yield ready


def test_windows_show_what_one_pass_is_too_small_for(client: Any) -> None:
    """Each block of 8 pixels is a cell: at its own scale every one has the label that its color is nearest to."""
    whole = labels(client.post("/segment?format=npy&tile=never", content=FILE))
    inside = labels(client.post("/segment?format=npy&tile=always", content=FILE))
    directions = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1], [-1, -1, -1]])
    nearest = ((PHOTO[4::8, 4::8] / 127.5 - 1) @ directions.T).argmax(axis=2)
    centers = inside[4::8, 4::8]
    assert whole.shape == inside.shape == PHOTO.shape[:2]
    assert (centers == nearest).mean() > 0.9
    assert (whole[4::8, 4::8] == nearest).mean() < 0.7


def test_every_format_says_the_same(client: Any) -> None:
    expected = labels(client.post("/segment?format=npy&tile=always", content=FILE))
    answer = client.post("/segment?tile=always&confidence=true", content=FILE)
    told = answer.json()
    shown = Image.open(io.BytesIO(base64.b64decode(told["label_map"]["data"])))
    assert (np.asarray(shown) == expected).all()
    assert (told["width"], told["height"]) == (480, 320)
    assert any(WARNING in warning for warning in told["warnings"])
    assert {c["id"]: c["pixels"] for c in told["clusters"]} == {int(i): int((expected == i).sum()) for i in range(5)}
    assert all(0 < c["confidence"] < 1 for c in told["clusters"])
    plain = client.post("/segment?tile=always", content=FILE).json()
    for one, other in zip(plain["clusters"], told["clusters"], strict=True):
        assert one["confidence"] == pytest.approx(other["confidence"], abs=0.05)
    picture = client.post("/segment?format=png&tile=always", content=FILE)
    assert (np.asarray(Image.open(io.BytesIO(picture.content))) == expected).all()
    merged = labels(client.post("/segment?format=npy&tile=always&k=2", content=FILE))
    assert len(np.unique(merged)) == 2
    sure = client.post("/segment?format=npy&tile=always&unknown=0.3", content=FILE)
    known = labels(sure) != 255
    assert 0.1 < known.mean() < 1
    assert (labels(sure)[known] == expected[known]).all()
    painted = client.post("/segment?format=overlay&tile=always&alpha=0", content=FILE, headers={"accept": "image/webp"})
    assert np.abs(np.asarray(Image.open(io.BytesIO(painted.content))).astype(int) - PHOTO).mean() < 12


def test_auto_is_one_pass_for_photos_and_windows_for_large_rasters_that_lie_somewhere(client: Any) -> None:
    photo = client.post("/segment?format=npy", content=FILE)
    assert (labels(photo) == labels(client.post("/segment?format=npy&tile=never", content=FILE))).all()
    assert WARNING not in photo.headers.get("x-warning", "")
    windowed = labels(client.post("/segment?format=npy&tile=always", content=FILE))
    raster = client.post("/segment?format=npy", content=RASTER)
    assert (labels(raster) == windowed).all()
    assert WARNING in raster.headers["x-warning"]
    for other in (geotiff(PHOTO), geotiff(PHOTO[:200, :300], **PLACED)):
        assert WARNING not in client.post("/segment?format=npy", content=other).headers.get("x-warning", "")
    assert WARNING not in client.post("/segment?format=npy&crf=fast", content=RASTER).headers.get("x-warning", "")


def test_no_data_is_kept_apart(client: Any) -> None:
    image = PHOTO // 2 + 100
    image[:150, 200:] = 0
    file = geotiff(image, nodata=0, **PLACED)
    kept = labels(client.post("/segment?format=npy&nodata=keep", content=file))
    assert ((kept == 255) == (image == 0).all(axis=2)).all()
    answer = client.post("/segment?nodata=fill", content=file).json()
    assert answer["valid_fraction"] == pytest.approx((kept != 255).mean())
    again = labels(client.post("/segment?format=npy&nodata=keep", content=file))
    assert (again == kept).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (64, 64), (65, 63)])
def test_any_size_has_an_answer(client: Any, size: tuple[int, int]) -> None:
    file = encode(bands(*size), "png")
    assert labels(client.post("/segment?format=npy&tile=always", content=file)).shape == size


def test_what_cannot_go_together_is_refused(client: Any) -> None:
    assert "tile" in problem(client.post("/segment?tile=always&crf=true", content=FILE), 422)
    assert "tile" in problem(client.post("/segment?tile=some", content=FILE), 422)


def test_a_request_whose_time_is_up_is_told_so(client: Any) -> None:
    big = encode(np.zeros((2000, 2000, 3), np.uint8), "png")
    assert "timeout_ms" in problem(client.post("/segment?tile=always&timeout_ms=40", content=big), 504)
    assert client.post("/segment?format=npy", content=FILE).status_code == 200
