"""Label maps as GeoTIFF, read by rasterio and rio-tiler: where they lie, colors, names, overviews; whole or absent."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rio_tiler.io import Reader

from models.errors import UsageError
from models.io import geodesy, geotiff, tiff_georeference
from models.io.geotiff import LabelMapWriter
from models.palette import distinct
from tests.models.io.test_tiff_georeference import CORNERS, CUSTOM, UTM, rpcs, written

COLORS = distinct(7)
NAMES = [f"Straße {i}" for i in range(7)]


def blobs(height: int, width: int) -> np.ndarray:
    """Labels 0..6 in regions, and 255 in the upper left corner."""
    y, x = np.mgrid[:height, :width]
    labels = ((np.sin(x / 19) + np.cos(y / 23)) * 3 + 3).clip(0, 6).astype(np.uint8)
    labels[: height // 5, : width // 5] = 255
    return labels


LABELS = blobs(20, 30)


@pytest.mark.parametrize(
    "place",
    [
        {"crs": UTM, "transform": Affine(10, 0, 5e5, 0, -10, 5e6)},
        {"crs": UTM, "transform": Affine(10, 0, 5e5, 0, -10, 5e6), "tags": {"AREA_OR_POINT": "Point"}},
        {"crs": UTM, "transform": Affine(10, 0, 5e5, 0, 10, 5e6)},
        {"crs": UTM, "transform": Affine(1, 0, 0, 0, 1, 0)},
        {"crs": UTM, "transform": Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(2, -3)},
        {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 179.9, 0, -0.01, 60)},
        {"crs": CUSTOM, "transform": Affine(0.3, 0, 6e5, 0, -0.3, 6e5)},
        {"transform": Affine(0.3, 0, 6e5, 0, -0.3, 6e5)},
        {"crs": "EPSG:27700"},
        {"rpcs": rpcs()},
        {"crs": UTM, "gcps": [rasterio.control.GroundControlPoint(r, c, 3.0 * c, 9.0 - r, 7) for r, c in CORNERS]},
        {},
    ],
)  # fmt: skip
def test_it_lies_where_the_source_lies(place: dict[str, Any]) -> None:
    source = written(**place)
    with geodesy.gdal(), MemoryFile(source) as file, MemoryFile(
        geotiff.encode(LABELS, tiff_georeference.read(source), names=NAMES, colors=COLORS)
    ) as copy, file.open() as there, copy.open() as here:  # fmt: skip
        assert here.crs == there.crs
        assert np.allclose(here.transform[:6], there.transform[:6], rtol=1e-12, atol=0)
        assert here.gcps[1] == there.gcps[1]
        assert [(p.row, p.col, p.x, p.y, p.z) for p in here.gcps[0]] == [
            (p.row, p.col, p.x, p.y, p.z) for p in there.gcps[0]
        ]
        assert (here.rpcs is None) == (there.rpcs is None)
        if there.rpcs is not None:
            assert {**here.rpcs.to_dict(), "err_bias": 0, "err_rand": 0} == {
                **there.rpcs.to_dict(), "err_bias": 0, "err_rand": 0
            }  # fmt: skip
        assert here.tags().get("AREA_OR_POINT") == there.tags().get("AREA_OR_POINT") or there.rpcs is not None
        assert (here.read(1) == LABELS).all()


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rio-tiler's own
def test_what_gdal_and_titiler_see(tmp_path: Path) -> None:
    labels, path = blobs(1300, 1100), tmp_path / "labels.tif"
    path.write_bytes(
        geotiff.encode(
            labels,
            tiff_georeference.read(written(crs=UTM, transform=Affine(10, 0, 5e5, 0, -10, 5e6))),
            names=NAMES,
            colors=COLORS,
        )
    )
    with geodesy.gdal(), rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.compression.name == "deflate"
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.colorinterp[0].name == "palette"
        assert dataset.nodata == 255
        assert dataset.descriptions == ("cluster",)
        assert dataset.tags(1) == {f"CLASS_{i}": name for i, name in enumerate(NAMES)}
        table = dataset.colormap(1)
        assert [table[i] for i in range(7)] == [(*color, 255) for color in COLORS.tolist()]
        assert table[255][3] == 0
        assert dataset.overviews(1) == [2, 4]
        for factor in dataset.overviews(1):
            small = dataset.read(1, out_shape=(1300 // factor, 1100 // factor))
            assert set(np.unique(small)) <= set(np.unique(labels))
    with Reader(str(path)) as reader:
        bounds = reader.get_geographic_bounds(rasterio.CRS.from_epsg(4326))
        middle = ((bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2)
        point = reader.point(*middle)
        assert point.data[0] in labels
        tile = next(iter(reader.tms.tiles(*middle, *middle, zooms=[12])))
        image = reader.tile(tile.x, tile.y, tile.z, resampling_method="nearest")
        rgba = image.apply_colormap(reader.colormap)
        seen = image.array.data[0][image.mask == 255]
        assert len(np.unique(seen)) > 1
        assert (rgba.array.data[:3, image.mask == 255] == COLORS[seen].T).all()


def test_sixteen_bits_have_no_colors() -> None:
    labels = blobs(20, 30).astype(np.uint16) + 250
    labels[0, 0] = 65535
    with geodesy.gdal(), MemoryFile(geotiff.encode(labels, colors=COLORS, nodata=65535)) as file, file.open() as found:
        assert found.dtypes == ("uint16",)
        assert found.nodata == 65535
        assert (found.read(1) == labels).all()
        with pytest.raises(ValueError, match="color table"):
            found.colormap(1)


def test_windows_in_any_order_make_the_map(tmp_path: Path) -> None:
    labels, path = blobs(1000, 1400), tmp_path / "labels.tif"
    windows = [(top, left) for top in range(0, 1000, 300) for left in range(0, 1400, 500)]
    with LabelMapWriter(path, (1000, 1400), names=NAMES, colors=COLORS) as writer:
        for top, left in np.random.default_rng(0).permutation(windows):
            writer.write(int(top), int(left), labels[top : top + 300, left : left + 500])
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["labels.tif"]
    with geodesy.gdal(), rasterio.open(path) as found:
        assert (found.read(1) == labels).all()


def test_what_was_not_written_is_no_data(tmp_path: Path) -> None:
    with LabelMapWriter(tmp_path / "labels.tif", (600, 600)) as writer:
        writer.write(0, 0, np.zeros((10, 10), np.uint8))
    with geodesy.gdal(), rasterio.open(tmp_path / "labels.tif") as found:
        ids = found.read(1)
    assert (ids[:10, :10] == 0).all()
    assert (ids == 255).sum() == 600 * 600 - 100


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="unpack"), LabelMapWriter(path, (600, 600)) as writer:
        writer.write(0, 0, np.zeros(600, np.uint8))
    with pytest.raises(OSError, match="nowhere"):
        LabelMapWriter(tmp_path / "nowhere" / "labels.tif", (10, 10))
    assert [file.name for file in tmp_path.iterdir()] == ["labels.tif"]
    assert path.read_bytes() == b"before"


@pytest.mark.slow
def test_a_large_map_is_never_in_memory(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
import numpy as np
from models.io.geotiff import LabelMapWriter
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
side, tile = 12000, 1024
window = np.add.outer(np.arange(tile) // 37, np.arange(tile) // 53).astype(np.uint8) % 12
with LabelMapWriter(Path({str(tmp_path / "small.tif")!r}), (tile, tile)) as writer:
    writer.write(0, 0, window)
before = peak()
with LabelMapWriter(Path({str(tmp_path / "labels.tif")!r}), (side, side)) as writer:
    for top in range(0, side, tile):
        for left in range(0, side, tile):
            writer.write(top, left, window[: side - top, : side - left])
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 130  # MB; the map has 144
    with geodesy.gdal(), rasterio.open(tmp_path / "labels.tif") as found:
        assert found.overviews(1) == [2, 4, 8, 16, 32]
        assert (found.read(1, window=((11264, 12000), (11264, 12000)))[0] == np.arange(736) // 53 % 12).all()


def test_without_rasterio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(geodesy, "here", lambda: False)
    for write in (lambda: geotiff.encode(LABELS), lambda: LabelMapWriter(tmp_path / "labels.tif", (2, 2))):
        with pytest.raises(UsageError, match=r"tessera-segmentation\[geo\]"):
            write()
