"""GeoPackages, read by GDAL (pyogrio) and by SQLite: polygons with holes, fields, systems, none."""

import sqlite3
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely

from models.errors import UsageError
from models.io import geopackage
from models.polygons import regions

LABELS = np.random.default_rng(0).integers(0, 3, (30, 40)).astype(np.uint8)


@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_polygons_come_back_with_their_fields(tmp_path: Path, crs: str | None) -> None:
    found, path = regions(LABELS), tmp_path / "regions.gpkg"
    names = np.array([f"Straße {i}" for i in found.ids], object)
    fields = {"cluster_id": found.ids, "name": names, "pixels": found.pixels}
    data = geopackage.encode([region.rings for region in found], fields, crs, "regions")
    assert data == geopackage.encode([region.rings for region in found], fields, crs, "regions")
    path.write_bytes(data)
    meta, _, geometry, (ids, texts, pixels) = pyogrio.raw.read(path, layer="regions")
    assert meta["crs"] == crs
    assert (ids == found.ids).all()
    assert (texts == names).all()
    shapes = shapely.from_wkb(geometry)
    assert shapely.is_valid(shapes).all()
    assert (shapely.area(shapes) == pixels).all()
    assert pixels.sum() == LABELS.size
    for shape, region in zip(shapes, found, strict=True):
        assert (shapely.get_coordinates(shape) == np.concatenate(region.rings)).all()


def test_a_map_without_regions_is_an_empty_layer(tmp_path: Path) -> None:
    path = tmp_path / "regions.gpkg"
    path.write_bytes(geopackage.encode([], {"cluster_id": np.empty(0, np.int32)}, None, "regions"))
    assert pyogrio.read_info(path)["features"] == 0
    with sqlite3.connect(path) as database:
        assert database.execute("select table_name from gpkg_contents").fetchall() == [("regions",)]
    database.close()


def test_without_pyogrio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geopackage, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pyogrio.*tessera-segmentation\[geo\]"):
        geopackage.encode([], {}, None, "regions")
