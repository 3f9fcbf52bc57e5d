"""`format=geotiff` through the server: coordinates of the source, colors, names, holes, and what cannot be written."""

import re

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from starlette.testclient import TestClient

from models.io import geodesy
from models.io.encode import encode
from tests.models.io.drawn import tiff
from tests.models.io.test_tiff_georeference import UTM, rpcs
from tests.tiny import COLORS, bands

PHOTO = bands(60, 100)
PLACE = Affine(10, 0, 5e5, 0, -10, 5e6)


def geotiff(photo: NDArray[np.uint8], **place: object) -> bytes:
    """GDAL's file of RGB uint8 [H, W, 3]."""
    height, width = photo.shape[:2]
    with geodesy.gdal(), MemoryFile() as file:
        with file.open(driver="GTiff", width=width, height=height, count=3, dtype="uint8", **place) as dataset:
            dataset.write(np.moveaxis(photo, 2, 0))
        return bytes(file.getbuffer())


def test_it_lies_where_the_source_lies(client: TestClient) -> None:
    for place in ({"crs": UTM, "transform": PLACE}, {"rpcs": rpcs()}, {}):
        source = geotiff(PHOTO, **place)
        answer = client.post("/segment", content=source, headers={"accept": "image/tiff"})
        assert answer.headers["content-type"] == "image/tiff"
        here, there = MemoryFile(answer.content), MemoryFile(source)
        with geodesy.gdal(), here, there, here.open() as labels, there.open() as photo:
            assert (labels.crs, labels.transform) == (photo.crs, photo.transform)
            assert (labels.rpcs is None) == (photo.rpcs is None)
            assert labels.nodata == 255
            assert [labels.colormap(1)[i][:3] for i in range(5)] == list(COLORS.values())
            assert labels.tags(1)["CLASS_3"] == client.get("/clusters/3").json()["name"]


def test_turned_pages_and_levels_keep_their_place(client: TestClient) -> None:
    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)
    tags = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True),
            (34735, 3, len(keys), keys, True), (274, 3, 1, 6, True)]  # fmt: skip
    answer = client.post("/segment?format=geotiff", content=tiff(PHOTO, photometric="rgb", extratags=tags))
    with geodesy.gdal(), MemoryFile(answer.content) as file, file.open() as labels:
        assert labels.shape == (100, 60)
        assert labels.transform @ (60, 0) == (5e5, 5e6)  # upper right as shown is upper left as stored
        assert labels.transform @ (0, 100) == (5e5 + 1000, 5e6 - 600)
    with geodesy.gdal(), MemoryFile() as file:
        with file.open(driver="GTiff", width=600, height=400, count=3, dtype="uint8", tiled=True, blockxsize=256,
                       blockysize=256, crs=UTM, transform=PLACE) as dataset:  # fmt: skip
            dataset.write(np.moveaxis(bands(400, 600), 2, 0))
            dataset.build_overviews([2])
        source = bytes(file.getbuffer())
    for level, size, pixel in (("auto", (400, 600), 10), ("full", (400, 600), 10), ("1", (200, 300), 20)):
        answer = client.post(f"/segment?format=geotiff&pyramid={level}", content=source)
        with geodesy.gdal(), MemoryFile(answer.content) as file, file.open() as labels:
            assert labels.shape == size
            assert labels.transform[:6] == (pixel, 0, 5e5, 0, -pixel, 5e6)


def test_other_files_have_no_coordinates(client: TestClient) -> None:
    answer = client.post("/segment?format=geotiff", content=encode(PHOTO, "png"))
    with geodesy.gdal(), MemoryFile(answer.content) as file, file.open() as labels:
        assert labels.crs is None
        assert labels.transform == Affine.identity()


def test_no_data_is_255(client: TestClient) -> None:
    photo = PHOTO.copy()
    photo[:20, :30] = 0
    source = geotiff(photo, nodata=0, crs=UTM, transform=PLACE)
    answer = client.post("/segment?format=geotiff&nodata=keep", content=source)
    with geodesy.gdal(), MemoryFile(answer.content) as file, file.open() as labels:
        assert (labels.read(1)[:20, :30] == 255).all()
        assert (labels.read_masks(1)[:20, :30] == 0).all()
        assert labels.colormap(1)[255][3] == 0


def test_without_rasterio_the_answer_says_what_to_install(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geodesy, "here", lambda: False)
    source = geotiff(PHOTO, crs=UTM, transform=PLACE)
    for query, accept in (("?format=geotiff", "*/*"), ("", "image/tiff")):
        answer = client.post(f"/segment{query}", content=source, headers={"accept": accept})
        assert answer.status_code == 422
        assert re.search(r"rasterio.*pip install 'tessera-segmentation\[geo\]'", answer.json()["detail"])
    assert client.post("/segment", content=source).status_code == 200


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_the_smallest_and_the_longest(client: TestClient, size: tuple[int, int]) -> None:
    answer = client.post("/segment?format=geotiff", content=encode(bands(*size), "png"))
    with geodesy.gdal(), MemoryFile(answer.content) as file, file.open() as labels:
        assert labels.shape == size


def test_coordinates_that_no_file_holds_are_left_out_and_said(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(wkt: str | None) -> object:
        raise rasterio.errors.RasterioError("not today")

    monkeypatch.setattr(geodesy, "crs", refuses)
    answer = client.post("/segment?format=geotiff", content=geotiff(PHOTO, crs=UTM, transform=PLACE))
    assert answer.status_code == 200
    assert "could not be written" in answer.headers["x-warning"]
