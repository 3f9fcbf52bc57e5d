"""A file in windows to a label map of its size and place."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

from models.bundle import Bundle
from models.deadline import Deadline, DeadlineExceeded
from models.io.samples import ImageTooLarge, Limits, UnsupportedImage
from service.formats.result import ClusterStyle
from service.inference import large
from service.inference.large import LargeAnswer
from service.inference.options import Options
from service.inference.windowed import on_engine
from tests.tiny import MeanColor, bands

STYLE = ClusterStyle(
    tuple("rgbwk"), np.arange(15, dtype=np.uint8).reshape(5, 3), frozenset(), np.arange(5, dtype=np.uint8)
)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bands of colors in 16 bits, a part of it without data, somewhere in Austria."""
    path = tmp_path_factory.mktemp("large") / "a.tif"
    data = bands(300, 400).transpose(2, 0, 1).astype(np.uint16) * 200 + 100
    data[:, 200:240, 100:150] = 0
    profile = {"width": 400, "height": 300, "count": 3, "dtype": "uint16", "nodata": 0, "crs": "EPSG:32633"}
    profile |= {"transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6), "tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(data)
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    return path


def run(bundle: Bundle, path: Path, out: Path, **given: str) -> LargeAnswer:
    options = Options.model_validate(given)
    return large.segment_large(
        path, out, bundle.manifest, on_engine(MeanColor()), options, style=STYLE, table=STYLE.becomes
    )


def test_a_raster_becomes_a_label_map_of_its_size_and_place(bundle: Bundle, raster: Path, tmp_path: Path) -> None:
    told = run(bundle, raster, tmp_path / "labels.tif", nodata="keep")
    with rasterio.open(raster) as before, rasterio.open(tmp_path / "labels.tif") as after:
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        assert (after.nodata, after.dtypes[0]) == (255, "uint8")
        labels = after.read(1)
        assert after.colormap(1)[4][:3] == (12, 13, 14)
        assert after.tags(1)["CLASS_2"] == "b"
    for cluster, left in enumerate(range(40, 400, 80)):
        assert (labels[:190, left - 20 : left + 20] == cluster).all()
    assert (labels == 255).sum() == 40 * 50
    assert (labels[200:240, 100:150] == 255).all()
    assert told.size == (300, 400)
    assert told.valid_fraction == 1 - 2000 / 120000
    counts = {area.id: area.pixels for area in told.areas}
    assert counts == {i: int((labels == i).sum()) for i in range(5)}
    boxes = {area.id: area.bbox for area in told.areas}
    rows, columns = np.nonzero(labels == 2)
    assert boxes[2] == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert "of 35 of 35 tiles" in (told.depth_rule or "")


def test_a_level_is_a_map_of_its_own_size_in_the_same_place(bundle: Bundle, raster: Path, tmp_path: Path) -> None:
    run(bundle, raster, tmp_path / "labels.tif", pyramid="1", nodata="fill")
    with rasterio.open(tmp_path / "labels.tif") as after:
        assert after.shape == (150, 200)
        assert after.res == (4, 4)
        assert (after.read(1) != 255).all()


def test_merged_clusters_are_written_as_what_stands_for_them(bundle: Bundle, raster: Path, tmp_path: Path) -> None:
    table = np.array([0, 0, 0, 3, 3], np.uint8)
    told = large.segment_large(
        raster, tmp_path / "a.tif", bundle.manifest, on_engine(MeanColor()), Options(), style=STYLE, table=table
    )
    assert {area.id for area in told.areas} == {0, 3}
    with rasterio.open(tmp_path / "a.tif") as after:
        assert set(np.unique(after.read(1)).tolist()) == {0, 3}


def test_ids_may_begin_elsewhere_and_what_is_unknown_has_none(bundle: Bundle, raster: Path, tmp_path: Path) -> None:
    run(bundle, raster, tmp_path / "plain.tif")
    told = run(bundle, raster, tmp_path / "a.tif", id_offset="1", unknown="0.9")
    run(bundle, raster, tmp_path / "b.tif", id_offset="300")
    with rasterio.open(tmp_path / "plain.tif") as file:
        plain = file.read(1)
    with rasterio.open(tmp_path / "a.tif") as file:
        found = file.read(1)
        assert file.tags(1)["CLASS_1"] == "r"
        assert file.colormap(1)[5][:3] == (12, 13, 14)
    known = found != 255
    assert 0.1 < known.mean() < 0.99
    assert (found[known] == plain[known] + 1).all()
    assert sum(area.pixels for area in told.areas) <= known.sum()
    assert told.valid_fraction > known.mean()
    with rasterio.open(tmp_path / "b.tif") as file:
        assert (file.dtypes[0], file.nodata) == ("uint16", 65535)
        assert (file.read(1) == plain.astype(int) + 300).all()


def test_nothing_is_left_of_what_was_not_finished(bundle: Bundle, raster: Path, tmp_path: Path) -> None:
    until = Deadline()
    with pytest.raises(DeadlineExceeded):
        large.segment_large(
            raster,
            tmp_path / "a.tif",
            bundle.manifest,
            on_engine(MeanColor()),
            Options(),
            style=STYLE,
            table=STYLE.becomes,
            until=until,
            progress=lambda done, total: until.cancel() if done > total / 2 else None,
        )
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_read_in_windows_is_refused_with_what_to_do(bundle: Bundle, raster: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(UnsupportedImage, match="gdal_translate"):
        run(bundle, tmp_path / "a.png", tmp_path / "b.tif")
    few = Limits(max_mpx=0.1, setting="TESSERA_MAX_FILE_MPX")
    with (
        pytest.raises(ImageTooLarge, match="TESSERA_MAX_FILE_MPX"),
        large.open_rows(raster, large.choice_of(Options(), bundle.manifest), few),
    ):
        pass


def test_a_zarr_picture_becomes_a_label_image_beside_it(bundle: Bundle, tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=3)
    group.create_array("0", data=bands(300, 400).transpose(2, 0, 1), chunks=(1, 64, 64))
    axes = [{"name": name} for name in "cyx"]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": []}]}
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [multiscale]}})
    told = run(bundle, tmp_path / "a.zarr", tmp_path / "a.zarr", id_offset="1")
    image = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["labels/tessera"]
    labels = np.asarray(image["0"])
    assert told.size == labels.shape == (300, 400)
    for cluster, left in enumerate(range(40, 400, 80), 1):
        assert (labels[:, left - 20 : left + 20] == cluster).all()
    assert dict(image.attrs)["ome"]["image-label"]["properties"][0] == {"label-value": 1, "name": "r"}
