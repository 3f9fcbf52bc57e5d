"""Files below a root: as uploads where they are small, in windows where they are not, and nothing else of the disk."""

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from PIL import Image
from rasterio.io import MemoryFile

from models.io.encode import encode
from tests.service.answers import labels, problem
from tests.service.server import server_of
from tests.tiny import bands

PHOTO = bands(300, 400)
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`root` with an image, a raster and a Zarr store, and beside it what nobody may see."""
    home = tmp_path_factory.mktemp("home")
    root = home / "root"
    root.mkdir()
    (root / "a.png").write_bytes(encode(PHOTO, "png"))
    profile = {"width": 400, "height": 300, "count": 3, "dtype": "uint16", "tiled": True, "blockxsize": 64}
    with rasterio.open(root / "a.tif", "w", driver="GTiff", blockysize=64, **profile, **PLACE) as file:
        file.write(PHOTO.transpose(2, 0, 1).astype(np.uint16) * 200)
    group = zarr.open_group(str(root / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=PHOTO.transpose(2, 0, 1), chunks=(1, 64, 64))
    axes = [{"name": name} for name in "cyx"]
    group.attrs.update({"multiscales": [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]})
    with rasterio.open(root / "big.tif", "w", driver="GTiff", width=4000, height=2000, count=1, dtype="uint8", **PLACE):
        pass
    (home / "secret.png").write_bytes(encode(PHOTO, "png"))
    (root / "out.png").symlink_to(home / "secret.png")
    os.mkfifo(root / "pipe")
    (root / "text").write_text("no image")
    return home


@pytest.fixture(scope="module")
def client(home: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that takes no file of more than 200,000 bytes as an upload: the raster is larger."""
    serve = server_of(tiny_bundle, tmp_path_factory.mktemp("state"))
    with serve(roots=(home / "root",), max_bytes=200_000, max_mpx=0.13, max_file_mpx=10) as ready:
        yield ready


def ask(client: Any, path: str, query: str = "format=npy", **how: Any) -> Any:
    return client.post(f"/segment?{query}", json={"path": path}, **how)


def test_a_small_file_is_answered_as_an_upload(client: Any, home: Path) -> None:
    sent = client.post("/segment?format=npy", content=encode(PHOTO, "png"))
    for path in ("a.png", str(home / "root" / "a.png"), f"file://{home}/root/a.png"):
        assert (labels(ask(client, path)) == labels(sent)).all()
    assert ask(client, "a.png", "format=overlay").status_code == 200
    assert ask(client, "a.png", "crf=fast").json()["refined"] is True


def test_a_large_one_is_answered_in_classes(client: Any) -> None:
    assert "no class yet" in problem(ask(client, "a.tif", "classes=true"), 422)
    client.put("/classes/3", json={"name": "warm", "color": "#aa0000", "clusters": [0, 1]})
    client.put("/classes/7", json={"name": "cold", "clusters": [2, 3, 4]})
    answer = ask(client, "a.tif", "classes=true").json()
    assert (answer["of"], answer["k"], answer["suggestions"]) == ("classes", 2, [])
    found = labels(ask(client, "a.tif", "classes=true&format=npy"))
    assert {c["id"]: c["pixels"] for c in answer["clusters"]} == {i: int((found == i).sum()) for i in (3, 7)}
    with MemoryFile(ask(client, "a.tif", "classes=true&format=geotiff").content) as memory, memory.open() as file:
        assert (file.read(1) == found).all()
        assert file.colormap(1)[3][:3] == (0xAA, 0, 0)
    assert "classes" in problem(ask(client, "a.tif", "classes=true&k=2"), 422)


def test_a_large_one_is_read_in_windows_in_every_format_that_needs_no_photo(client: Any) -> None:
    assert (labels(ask(client, "a.tif"))[:, 20:60] == 0).all()
    found = labels(ask(client, "a.tif"))
    answer = ask(client, "a.tif", "k=5").json()
    assert {c["id"]: c["pixels"] for c in answer["clusters"]} == {i: int((found == i).sum()) for i in range(5)}
    assert all(c["confidence"] > 0.2 for c in answer["clusters"])
    assert (answer["width"], answer["height"]) == (400, 300)
    assert "tiles" in answer["depth_rule"]
    assert (np.asarray(Image.open(io.BytesIO(ask(client, "a.tif", "format=png").content))) == found).all()
    streamed = ask(client, "a.tif", "", headers={"accept": "image/tiff"})
    assert streamed.headers["content-type"] == "image/tiff"
    assert int(streamed.headers["content-length"]) == len(streamed.content)
    with MemoryFile(streamed.content) as memory, memory.open() as file:
        assert (file.read(1) == found).all()
        assert (file.crs, file.transform) == (PLACE["crs"], PLACE["transform"])
    for query in ("format=overlay", "confidence=true", "crf=true", "tile=never"):
        assert problem(ask(client, "a.tif", query), 422)


def test_a_zarr_store_is_a_file_too(client: Any, home: Path) -> None:
    found = labels(ask(client, "a.zarr"))
    assert (found[:, 20:60] == 0).all()
    streamed = ask(client, "a.zarr", "format=geotiff")
    with MemoryFile(streamed.content) as memory, memory.open() as file:
        assert (file.read(1) == found).all()
    assert not (home / "root" / "a.zarr" / "labels").exists()


def test_what_is_no_image_below_a_root_is_refused_in_words(client: Any, home: Path) -> None:
    for path in ("out.png", "../secret.png", str(home / "secret.png"), "nothing.tif", "pipe", ".", "a\0b", "x" * 5000):
        assert ask(client, path).status_code in (404, 422)
    assert problem(ask(client, "text"), 400)
    assert "TESSERA_ROOTS" in problem(client.post("/segment", json={"path": 3}), 400)
    assert problem(client.post("/segment", json={"path": "a.png", "image": ""}), 400)
    assert "POST /segment" in problem(client.post("/similar?x=1&y=1", json={"path": "a.png"}), 400)


def test_limits_of_pixels_are_those_of_files(home: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    serve = server_of(tiny_bundle, tmp_path)
    with serve(roots=(home / "root",), max_bytes=200_000, max_mpx=0.1, max_file_mpx=0.2) as client:
        assert ask(client, "a.tif", "format=geotiff").status_code == 200
        assert "format=geotiff" in problem(ask(client, "a.tif", "format=png"), 422)
        assert "TESSERA_MAX_MPX" in problem(ask(client, "a.png"), 413)
    with serve(roots=(home / "root",), max_bytes=200_000, max_mpx=0.05, max_file_mpx=0.1) as client:
        assert "TESSERA_MAX_FILE_MPX" in problem(ask(client, "a.tif", "format=geotiff"), 413)
    with serve() as client:
        assert "TESSERA_ROOTS" in problem(ask(client, "a.tif"), 403)


def test_a_large_file_whose_time_is_up_leaves_nothing_behind(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for limit_ms in (1, 30, 60):
        assert problem(ask(client, "big.tif", f"format=geotiff&timeout_ms={limit_ms}"), 504)
    ended = time.monotonic() + 10
    while list(tmp_path.iterdir()):  # what was under way ends with its window
        assert time.monotonic() < ended
        time.sleep(0.01)
