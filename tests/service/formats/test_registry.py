"""Every format gives the same label map; every renderer stands in FORMATS."""

import base64
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask
from rasterio.features import rasterize
from rasterio.io import MemoryFile
from starlette.testclient import TestClient

from models.io import geodesy
from models.io.encode import encode
from models.palette import overlay
from service.formats import registry
from tests.tiny import COLORS, bands

Labels = NDArray[np.uint8]
PALETTE = np.array(list(COLORS.values()), np.uint8)
PHOTO = bands(60, 100)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11


def from_png(data: bytes) -> Labels:
    picture = Image.open(io.BytesIO(data))
    assert picture.mode == "P"
    return np.asarray(picture)


def from_json(data: bytes) -> Labels:
    return from_png(base64.b64decode(json.loads(data)["label_map"]["data"]))


def from_color(data: bytes) -> Labels:
    picture = Image.open(io.BytesIO(data))
    assert picture.mode == "P"
    rgb = np.asarray(picture.convert("RGB"))
    return (rgb[:, :, None] == PALETTE).all(axis=3).argmax(axis=2).astype(np.uint8)


def from_overlay(data: bytes) -> Labels:
    """The labels whose overlay of PHOTO comes nearest at every pixel: lossy files round a little."""
    rgb = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    painted = [overlay(PHOTO, np.full(PHOTO.shape[:2], i, np.uint8), PALETTE).astype(int) for i in range(5)]
    return np.stack([np.abs(p - rgb).sum(axis=2) for p in painted]).argmin(axis=0).astype(np.uint8)


def from_npy(data: bytes) -> Labels:
    return np.load(io.BytesIO(data), allow_pickle=False)


def from_geotiff(data: bytes) -> Labels:
    with geodesy.gdal(), MemoryFile(data) as file, file.open() as dataset:
        return dataset.read(1)


def from_run_lengths(runs: list[tuple[int, dict[str, Any]]]) -> Labels:
    labels = np.full(runs[0][1]["size"], 255, np.uint8)
    for cluster, run in runs:
        labels[mask.decode(run).astype(bool)] = cluster
    return labels


def from_rle(data: bytes) -> Labels:
    return from_run_lengths([(c["id"], c["rle"]) for c in json.loads(data)["clusters"]])


def from_coco(data: bytes) -> Labels:
    return from_run_lengths([(a["cluster_id"], a["segmentation"]) for a in json.loads(data)["annotations"]])


def from_panoptic(data: bytes) -> Labels:
    files = zipfile.ZipFile(io.BytesIO(data))
    (annotation,) = json.loads(files.read("panoptic.json"))["annotations"]
    picture = Image.open(io.BytesIO(files.read(f"panoptic/{annotation['file_name']}")))
    assert picture.mode == "RGB"
    ids = np.asarray(picture).astype(int) @ [1, 256, 65536]
    labels = np.full(ids.shape, 255, np.uint8)
    for segment in annotation["segments_info"]:
        assert segment["id"] >= 1
        assert segment["area"] == (ids == segment["id"]).sum()
        labels[ids == segment["id"]] = segment["cluster_id"]
    return labels


def from_geojson(data: bytes) -> Labels:
    document = json.loads(data)
    shapes = []
    for feature in document["features"]:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)
        assert polygon.area == feature["properties"]["pixels"]
        shapes.append((polygon, feature["properties"]["cluster_id"]))
    return rasterize(shapes, (document["height"], document["width"]), fill=255, dtype="uint8")


def from_zip(data: bytes) -> Labels:
    files = zipfile.ZipFile(io.BytesIO(data))
    labels = from_png(files.read("segmentation.png"))
    assert (from_json(files.read("segmentation.json")) == labels).all()
    assert (from_coco(files.read("segmentation.coco.json")) == labels).all()
    assert Image.open(io.BytesIO(files.read("segmentation.overlay.jpg"))).size == labels.shape[::-1]
    assert Image.open(io.BytesIO(files.read("segmentation.confidence.png"))).mode == "L"
    return labels


# format, media type, how its bytes become labels again, whether every pixel has to be equal
FORMATS: list[tuple[str, str, Callable[[bytes], Labels], bool]] = [
    ("json", "application/json", from_json, True),
    ("png", "image/png", from_png, True),
    ("overlay", "image/jpeg", from_overlay, False),
    ("overlay", "image/webp", from_overlay, False),
    ("color", "image/png", from_color, True),
    ("npy", "application/x-npy", from_npy, True),
    ("rle", "application/json", from_rle, True),
    ("coco", "application/json", from_coco, True),
    ("panoptic", "application/zip", from_panoptic, True),
    ("geojson", "application/geo+json", from_geojson, True),
    ("geotiff", "image/tiff", from_geotiff, True),
    ("zip", "application/zip", from_zip, True),
]
NO_LABELS = {("confidence", "image/png")}  # formats that hold something else: tested by themselves


def test_every_renderer_has_a_row() -> None:
    assert {(r.name, r.media_type) for r in registry.RENDERERS} == {row[:2] for row in FORMATS} | NO_LABELS


@pytest.mark.parametrize(
    ("name", "media_type", "labels_of", "exact"), FORMATS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_formats_agree_pixel_for_pixel(
    client: TestClient, name: str, media_type: str, labels_of: Callable[[bytes], Labels], exact: bool
) -> None:
    photo = encode(PHOTO, "png")
    answer = client.post(f"/segment?format={name}", content=photo, headers={"accept": media_type})
    assert answer.headers["content-type"] == media_type
    reference = from_npy(client.post("/segment?format=npy", content=photo).content)
    got = labels_of(answer.content)
    assert got.shape == reference.shape == PHOTO.shape[:2]
    assert got.dtype == np.uint8
    assert (got == reference).all() if exact else (got == reference).mean() > 0.95


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("image/png", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("image/webp", "image/webp"),
        ("application/x-npy", "application/x-npy"),
        ("image/tiff", "image/tiff"),
        ("application/geo+json", "application/geo+json"),
        ("application/zip", "application/zip"),
        ("text/html, image/webp;q=0.8, image/png;q=0.9", "image/png"),
        ("image/jpeg;q=0, image/webp", "image/webp"),
        ("image/*", "image/png"),
        ("*/*, image/jpeg", "application/json"),
        ("text/html", "application/json"),
        ("image/png;q=abc, ;;,,, image/jpeg", "image/jpeg"),
        ("🦜" * 100, "application/json"),
    ],
)
def test_accept_chooses(accept: str, expected: str) -> None:
    assert registry.choose(None, accept).media_type == expected


@pytest.mark.parametrize(
    "accept", ["image/avif", "application/xml", "image/avif, application/xml;q=0.5", "application/pdf, x"]
)
def test_an_accept_that_nothing_fits_is_told_what_there_is(client: TestClient, accept: str) -> None:
    answer = client.post("/segment", content=encode(PHOTO, "png"), headers={"accept": accept})
    assert answer.status_code == 406
    for renderer in registry.RENDERERS:
        assert renderer.media_type in answer.json()["detail"] or not renderer.accept
    for query, sent in (("?format=json", accept), ("", f"{accept}, */*;q=0.1"), ("", f"text/html, {accept}")):
        answer = client.post(f"/segment{query}", content=encode(PHOTO, "png"), headers={"accept": sent})
        assert answer.headers["content-type"] == "application/json"


def test_format_wins_over_accept_and_accept_chooses_its_type() -> None:
    assert registry.choose("overlay", "image/webp").media_type == "image/webp"
    assert registry.choose("overlay", "*/*").media_type == "image/jpeg"
    assert registry.choose("overlay", "image/png").media_type == "image/jpeg"
    assert registry.choose("npy", "image/png").name == "npy"
    assert registry.choose("color", "").name == "color"


@pytest.mark.parametrize(
    ("name", "media_type"), [("png", "image/png"), ("other", "image/png"), ("overlay", "image/webp")]
)
def test_a_second_function_for_the_same_type_is_refused(name: str, media_type: str) -> None:
    before = list(registry.RENDERERS)

    def again(result: Any) -> bytes:
        return b""

    with pytest.raises(ValueError, match="already"):
        registry.renders(media_type, name=name)(again)
    assert before == registry.RENDERERS


def test_only_and_hidden_leave_the_rest_transparent(serve: Any) -> None:
    photo = encode(PHOTO, "png")
    with serve() as client:

        def colors(only: str) -> NDArray[np.uint8]:
            picture = Image.open(io.BytesIO(client.post(f"/segment?format=color{only}", content=photo).content))
            assert picture.mode == "P"
            return np.asarray(picture.convert("RGBA"))

        client.patch("/clusters/4", json={"hidden": True})
        rgba = colors("")
        labels = from_npy(client.post("/segment?format=npy", content=photo).content)
        assert ((rgba[..., 3] == 0) == (labels == 4)).all()
        assert (rgba[..., :3] == PALETTE[labels]).all()
        rgba = colors("&only=0,4")
        assert (rgba[..., :3] == PALETTE[labels]).all()
        assert ((rgba[..., 3] == 255) == np.isin(labels, [0, 4])).all()
        painted = np.asarray(
            Image.open(io.BytesIO(client.post("/segment?format=overlay&alpha=1&only=0", content=photo).content))
        )
        assert np.abs(painted[30, 90].astype(int) - PHOTO[30, 90]).max() < 12
        shown = client.post("/segment", content=photo).json()["clusters"]
        assert {c["id"]: c.get("hidden") for c in shown} == {0: None, 1: None, 2: None, 3: None, 4: True}
