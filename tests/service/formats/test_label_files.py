"""Every format tells the same label map, whatever its regions are like; what is asked of ids and of small regions."""

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask
from rasterio.features import rasterize
from rasterio.io import MemoryFile

from models import palette, polygons, region_stats
from models.io import geodesy
from service.errors import BadOption
from service.formats import archive, registry
from service.formats.result import NO_DATA, ClusterStyle, RenderOptions, SegmentationResult

Labels = NDArray[Any]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11


def result_of(labels: Labels, k: int, **chosen: Any) -> SegmentationResult:
    """A result with these labels, and margins of which each pixel has its own."""
    labels = labels.astype(np.uint8)
    margin = np.random.default_rng(1).random(labels.shape).astype(np.float32)
    names = tuple(f"cluster {i}" for i in range(k))
    return SegmentationResult(
        model="tiny",
        digest="0" * 12,
        k=k,
        image=np.zeros((*labels.shape, 3), np.uint8),
        labels=labels,
        table=np.arange(k, dtype=np.uint8),
        areas=region_stats.compute(labels, k, margin, ignored=NO_DATA),
        style=ClusterStyle(names, palette.distinct(k), frozenset({1} if k > 1 else ()), np.arange(k, dtype=np.uint8)),
        margin=margin,
        valid_fraction=float((labels != NO_DATA).mean()),
        options=RenderOptions(**{"keep_no_data": True, **chosen}),
    )


def rendered(result: SegmentationResult, name: str) -> bytes:
    return next(renderer for renderer in registry.RENDERERS if renderer.name == name).render(result)


def png(data: bytes) -> Labels:
    return np.asarray(Image.open(io.BytesIO(data)))


def runs(size: Any, told: list[tuple[int, Any]], nothing: int = NO_DATA) -> Labels:
    labels = np.full(size, nothing, int)
    for value, run in told:
        inside = mask.decode(run).astype(bool)
        assert (labels[inside] == nothing).all()
        labels[inside] = value
    return labels


def coco(data: bytes, field: str = "cluster_id") -> Labels:
    document = json.loads(data)
    (image,), annotations = document["images"], document["annotations"]
    assert [a["id"] for a in annotations] == list(range(1, len(annotations) + 1))
    assert sorted(a["cluster_id"] for a in annotations) == image["clusters"]
    known = {c["id"]: c["cluster_id"] for c in document["categories"]}
    for one in annotations:
        assert known[one["category_id"]] == one["cluster_id"]
        assert one["iscrowd"] == 0
        assert one["area"] == mask.area(one["segmentation"])
        assert one["bbox"] == mask.toBbox(one["segmentation"]).tolist()
    return runs((image["height"], image["width"]), [(a[field], a["segmentation"]) for a in annotations])


def rle(data: bytes) -> Labels:
    document = json.loads(data)
    for one in document["clusters"]:
        assert one["pixels"] == mask.area(one["rle"])
        assert one["bbox"] == mask.toBbox(one["rle"]).tolist()
    return runs((document["height"], document["width"]), [(c["id"], c["rle"]) for c in document["clusters"]])


def panoptic(data: bytes, field: str = "cluster_id") -> Labels:
    files = zipfile.ZipFile(io.BytesIO(data))
    document = json.loads(files.read("panoptic.json"))
    (annotation,), categories = document["annotations"], {c["id"] for c in document["categories"]}
    ids = png(files.read(f"panoptic/{annotation['file_name']}")).astype(int) @ [1, 256, 65536]
    labels = np.full(ids.shape, NO_DATA)
    assert set(np.unique(ids)) - {0} == {segment["id"] for segment in annotation["segments_info"]}
    for segment in annotation["segments_info"]:
        assert segment["category_id"] in categories
        rows, columns = np.nonzero(ids == segment["id"])
        left, top = columns.min(), rows.min()
        assert segment["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert segment["area"] == len(rows)
        labels[ids == segment["id"]] = segment[field]
    return labels


def geojson(data: bytes) -> Labels:
    document = json.loads(data)
    labels = np.full((document["height"], document["width"]), NO_DATA)
    assert document["coordinate_system"].startswith("pixels")
    for feature in document["features"]:
        told = feature["properties"]
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid
        assert polygon.exterior.is_ccw
        inside = rasterize([polygon], labels.shape) == 1
        assert (labels[inside] == NO_DATA).all()
        assert inside.sum() == told["pixels"] == polygon.area
        assert told.get("hidden") == next(
            c.get("hidden") for c in document["clusters"] if c["id"] == told["cluster_id"]
        )
        labels[inside] = told["cluster_id"]
    return labels


def geotiff(data: bytes) -> Labels:
    with geodesy.gdal(), MemoryFile(data) as file, file.open() as dataset:
        labels: Labels = dataset.read(1)
        return labels


READERS: dict[str, Callable[[bytes], Labels]] = {
    "json": lambda data: png(base64.b64decode(json.loads(data)["label_map"]["data"])),
    "png": png,
    "npy": lambda data: np.load(io.BytesIO(data)),
    "rle": rle,
    "coco": coco,
    "panoptic": panoptic,
    "geojson": geojson,
    "geotiff": geotiff,
}


def label_maps() -> Iterator[tuple[Labels, int]]:
    """Holes and islands, islands in holes, one-pixel regions, all ids, no data, one pixel, one row, one column."""
    rng = np.random.default_rng(11)
    nested = np.zeros((21, 25), int)
    for step, i in enumerate(range(2, 10)):
        nested[i : 21 - i, i : 25 - i] = step % 3
    yield nested, 3
    yield rng.integers(0, 3, (17, 22)), 3
    yield rng.integers(0, 254, (24, 24)), 254
    yield np.kron(rng.integers(0, 5, (6, 5)), np.ones((4, 7), int)), 5
    yield np.where(rng.random((15, 15)) < 0.3, NO_DATA, rng.integers(0, 4, (15, 15))), 4
    yield np.full((9, 9), NO_DATA), 4
    yield np.full((1, 1), 1), 2
    yield np.repeat(rng.integers(0, 2, (1, 64)), 500, axis=1), 2
    yield np.repeat(rng.integers(0, 2, (64, 1)), 500, axis=0), 2


@pytest.mark.parametrize("name", READERS)
def test_whatever_the_regions_are_like_the_label_map_is_the_same(name: str) -> None:
    for labels, k in label_maps():
        assert (READERS[name](rendered(result_of(labels, k), name)) == labels).all()


def test_a_map_against_itself_is_perfect_to_pycocotools(capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    document = json.loads(rendered(result_of(np.kron(np.arange(6).reshape(2, 3), np.ones((20, 30))), 6), "coco"))
    truth = COCO()
    truth.dataset = document
    truth.createIndex()
    found = truth.loadRes([{**one, "bbox": list(one["bbox"])} for one in document["annotations"]])
    judged = COCOeval(truth, found, "segm")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[0] == pytest.approx(1)
    assert "AP" in capsys.readouterr().out


def test_an_image_has_the_name_that_somebody_said() -> None:
    named = result_of(np.zeros((4, 6), int), 2, file_name="a/ü.jpg")
    for result, name in ((named, "a/ü.jpg"), (result_of(np.zeros((4, 6), int), 2), "image.png")):
        packed = zipfile.ZipFile(io.BytesIO(rendered(result, "panoptic")))
        for document in (rendered(result, "coco"), packed.read("panoptic.json")):
            assert json.loads(document)["images"][0]["file_name"] == name


@pytest.mark.parametrize(("k", "offset", "wide"), [(4, 1, False), (4, 251, False), (4, 252, True), (254, 2, True)])
def test_every_id_is_so_many_more(k: int, offset: int, wide: bool) -> None:
    labels = np.random.default_rng(0).integers(0, k, (20, 30))
    labels[3:5] = NO_DATA
    none = 65535 if wide else NO_DATA
    more = np.where(labels == NO_DATA, none, labels + offset)
    for palette_ in (True, False):
        result = result_of(labels, k, id_offset=offset, palette=palette_)
        picture = Image.open(io.BytesIO(rendered(result, "png")))
        assert picture.mode == ("I;16" if wide else "P" if palette_ else "L")
        assert (np.asarray(picture) == more).all()
        if picture.mode == "P":
            known = labels != NO_DATA
            assert (np.asarray(picture.convert("RGB"))[known] == palette.distinct(k)[labels[known]]).all()
    for name in ("npy", "geotiff"):
        array = READERS[name](rendered(result, name))
        assert array.dtype == (np.uint16 if wide else np.uint8)
        assert (array == more).all()
    with geodesy.gdal(), MemoryFile(rendered(result, "geotiff")) as file, file.open() as dataset:
        assert dataset.nodata == none
        assert dataset.tags(1)[f"CLASS_{offset}"] == "cluster 0"
    known = labels != NO_DATA
    for reader, name in ((coco, "coco"), (panoptic, "panoptic")):
        told = reader(rendered(result, name), "category_id")
        assert (told[known] == labels[known] + 1 + offset).all()
        assert (reader(rendered(result, name)) == labels).all()
    assert json.loads(rendered(result, "coco"))["info"]["id_offset"] == offset
    assert ("id_offset" in str(json.loads(rendered(result, "json"))["warnings"])) == bool(offset)


def test_how_wide_ids_are_is_not_said_by_the_image() -> None:
    for labels in (np.zeros((4, 4)), np.full((4, 4), 3)):
        assert np.load(io.BytesIO(rendered(result_of(labels, 4, id_offset=300), "npy"))).dtype == np.uint16


def test_small_regions_are_told_neither_as_polygons_nor_as_run_lengths() -> None:
    for labels, k in label_maps():
        result = result_of(labels, k, min_area=4)
        kept = polygons.without_specks(labels.astype(np.uint8), 4, NO_DATA)
        for name in ("rle", "coco", "geojson"):
            assert (READERS[name](rendered(result, name)) == kept).all()
        for name in ("json", "png", "npy", "panoptic", "geotiff"):
            assert (READERS[name](rendered(result, name)) == labels).all()


def test_every_polygon_has_the_mean_margin_of_its_pixels() -> None:
    result = result_of(np.random.default_rng(2).integers(0, 3, (12, 16)), 3)
    assert result.margin is not None
    for feature in json.loads(rendered(result, "geojson"))["features"]:
        inside = rasterize([shapely.geometry.shape(feature["geometry"])], result.labels.shape) == 1
        assert feature["properties"]["score"] == pytest.approx(result.margin[inside].mean(), abs=1e-4)
        assert result.labels[inside].min() == result.labels[inside].max() == feature["properties"]["cluster_id"]


def test_without_margins_regions_have_their_clusters() -> None:
    result = result_of(np.random.default_rng(6).integers(0, 3, (9, 9)), 3)
    sure = {area.id: round(area.confidence, 4) for area in result.areas}
    for min_area in (0, 2):
        told = replace(result, margin=None, options=result.options._replace(min_area=min_area))
        features = json.loads(rendered(told, "geojson"))["features"]
        assert all(f["properties"]["score"] == sure[f["properties"]["cluster_id"]] for f in features)
        assert {a["cluster_id"]: a["score"] for a in json.loads(rendered(told, "coco"))["annotations"]} == sure


def test_a_map_of_specks_is_refused_as_polygons_and_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, "MOST_REGIONS", 50)
    noise = np.random.default_rng(3).integers(0, 9, (20, 20))
    with pytest.raises(BadOption, match=r"min_area: .* 50 regions"):
        rendered(result_of(noise, 9), "geojson")
    assert geojson(rendered(result_of(noise, 9, min_area=9), "geojson")).shape == noise.shape


def test_pixels_without_data_are_told_as_the_map_shows_them() -> None:
    """With nodata=fill labels stand there too: counts of what is drawn are of all of it."""
    labels = np.kron(np.arange(4).reshape(2, 2), np.ones((5, 5))).astype(np.uint8)
    result = replace(
        result_of(labels, 4, keep_no_data=False),
        valid_fraction=0.25,
        areas=region_stats.compute(np.where(labels == 2, labels, NO_DATA), 4, ignored=NO_DATA),
    )
    for name, read in READERS.items():
        assert (read(rendered(result, name)) == labels).all()


def test_a_zip_has_the_files_that_are_named_and_is_the_same_each_time() -> None:
    result = result_of(
        np.random.default_rng(4).integers(0, 3, (12, 16)), 3, formats=("npy", "geojson", "color"), id_offset=1
    )
    data = rendered(result, "zip")
    files = zipfile.ZipFile(io.BytesIO(data))
    assert files.namelist() == ["segmentation.npy", "segmentation.geojson", "segmentation.color.png"]
    assert (np.load(io.BytesIO(files.read("segmentation.npy"))) == result.labels + 1).all()
    again = replace(result, options=result.options._replace(formats=("npy",)))
    assert rendered(again, "zip") == rendered(again, "zip")


def test_a_zip_needs_what_is_in_it() -> None:
    needs = [
        (r.photo, r.margin, r.offset) for r in map(archive.narrowed, [(), ("png", "npy"), ("coco",), ("overlay",)])
    ]
    assert needs == [(True, "full", True), (False, None, True), (False, "grid", True), (True, None, True)]


def test_margins_are_a_gray_picture() -> None:
    result = result_of(np.zeros((6, 7)), 2)
    assert result.margin is not None
    picture = Image.open(io.BytesIO(rendered(result, "confidence")))
    assert picture.mode == "L"
    assert (np.asarray(picture) == np.rint(result.margin * 255)).all()
