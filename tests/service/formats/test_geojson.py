"""GeoJSON and GeoPackage where the source lies somewhere: burnt back by GDAL they are the label map; RFC 7946; 180°."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.warp import transform
from starlette.testclient import TestClient

from models.io import geodesy
from models.io.georeference import ControlPoint, Georeference
from service.formats import registry
from service.formats.geopackage import gpkg
from tests.models.io.test_tiff_georeference import CUSTOM, UTM, rpcs
from tests.service.formats.test_geotiff import geotiff
from tests.service.formats.test_label_files import result_of

RNG = np.random.default_rng(5)
LABELS = np.kron(RNG.integers(0, 4, (12, 16)), np.ones((5, 5), int)).astype(np.uint8)
LABELS[7:9, 11:40] = RNG.integers(0, 4, (2, 29))  # regions of one pixel, holes
TILTED = Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(2, -3)
PLACES = {
    "utm": (UTM, Affine(10, 0, 5e5, 0, -10, 5e6)),
    "tilted": (UTM, TILTED),
    "south up": (UTM, Affine(10, 0, 5e5, 0, 10, 5e6)),
    "fine": (UTM, Affine(0.02, 0, 5e5, 0, -0.02, 5e6)),
    "degrees": (rasterio.CRS.from_epsg(4326), Affine(0.01, 0, 9, 0, -0.01, 60)),
    "no code": (CUSTOM, Affine(0.3, 0, 6e5, 0, -0.3, 6e5)),
    "coarse": (rasterio.CRS.from_epsg(3035), Affine(40000, 0, 2.6e6, 0, -40000, 5.4e6)),
}


def document(georeference: Georeference | None, labels: NDArray[np.uint8] = LABELS) -> tuple[dict[str, Any], list[str]]:
    """The GeoJSON of labels, judged as RFC 7946 has it, and the warnings."""
    result = replace(result_of(labels, 4), georeference=georeference)
    found = json.loads(registry.first("geojson").render(result))
    for feature in found["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid, shapely.is_valid_reason(shape)
        for polygon in getattr(shape, "geoms", [shape]):
            assert polygon.exterior.is_ccw
            assert not any(hole.is_ccw for hole in polygon.interiors)
    return found, result.warnings


def burnt(features: list[dict[str, Any]], crs: rasterio.CRS, place: Affine) -> NDArray[np.uint8]:
    """Their label map, by GDAL, in the source's coordinates."""
    shapes = []
    for feature in features:
        rings = [
            list(zip(*transform("EPSG:4326", crs, *np.array(ring).T.tolist()), strict=True))
            for ring in feature["geometry"]["coordinates"]
        ]
        shapes.append(({"type": "Polygon", "coordinates": rings}, feature["properties"]["cluster_id"]))
    return rasterize(shapes, LABELS.shape, fill=99, transform=place, dtype="uint8")


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@pytest.mark.parametrize("name", PLACES)
def test_polygons_burnt_back_are_the_label_map(name: str) -> None:
    crs, place = PLACES[name]
    found, warnings = document(Georeference(crs.to_wkt(), place[:6]))
    assert found["coordinate_system"].startswith("WGS 84")
    assert not warnings
    with geodesy.gdal():
        assert (burnt(found["features"], crs, place) == LABELS).all()
    longitudes = [f"{ring[0][0]}" for f in found["features"] for ring in f["geometry"]["coordinates"]]
    assert max(len(text.partition(".")[2]) for text in longitudes) >= 9 or name == "degrees"


def test_corners_lie_where_gdal_says(client: TestClient) -> None:
    photo = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    answer = client.post("/segment?format=geojson", content=geotiff(photo, crs=UTM, transform=TILTED))
    points = np.concatenate([ring for f in answer.json()["features"] for ring in f["geometry"]["coordinates"]])
    corners = transform(
        UTM, "EPSG:4326", *zip(*[TILTED @ c for c in ((0, 0), (80, 0), (0, 60), (80, 60))], strict=True)
    )
    for corner in zip(*corners, strict=True):
        assert np.abs(points - corner).sum(axis=1).min() < 2e-10
    assert "x-warning" not in answer.headers


def test_points_and_polynomials_place_as_well() -> None:
    points = tuple(ControlPoint(r, c, *(TILTED @ (c, r))) for r in (0, 30, 60) for c in (0, 40, 80))
    by_points, _ = document(Georeference(UTM.to_wkt(), None, points))
    assert "9 control points" in by_points["coordinate_system"]
    with geodesy.gdal(), MemoryFile(geotiff(np.zeros((20, 30, 3), np.uint8), rpcs=rpcs())) as file, file.open() as made:
        polynomials = made.rpcs.to_dict()
    by_rpcs, _ = document(Georeference(rpcs=polynomials), LABELS[:20, :30])
    assert "RPCs at a height of 400 m" in by_rpcs["coordinate_system"]
    for found, middle in ((by_points, transform(UTM, "EPSG:4326", *([v] for v in TILTED @ (40, 30)))),
                          (by_rpcs, ([9.24], [46.55]))):  # fmt: skip
        shapes = shapely.GeometryCollection([shapely.geometry.shape(f["geometry"]) for f in found["features"]])
        assert shapes.envelope.contains(shapely.Point(middle[0][0], middle[1][0]))


@pytest.mark.parametrize("crs", ["EPSG:32660", "EPSG:4326"])
def test_polygons_are_cut_at_180(crs: str) -> None:
    place = {"EPSG:32660": (500, 0, 8.15e5, 0, -500, 100_000), "EPSG:4326": (0.01, 0, 179.6, 0, -0.01, 1)}[crs]
    found, warnings = document(Georeference(rasterio.CRS.from_string(crs).to_wkt(), place))
    assert not warnings
    kinds = {feature["geometry"]["type"] for feature in found["features"]}
    assert kinds == {"Polygon", "MultiPolygon"}
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in found["features"]]
    assert all(-180 <= shape.bounds[0] <= shape.bounds[2] <= 180 for shape in shapes)
    assert all(shape.bounds[0] > 179 or shape.bounds[2] < -179 or shape.geom_type == "MultiPolygon" for shape in shapes)
    assert np.isclose(sum(shape.area for shape in shapes) / shapely.union_all(shapes).area, 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (Georeference(transform=(1, 0, 5, 0, -1, 5)), "does not say of which coordinate system"),
        (Georeference(UTM.to_wkt()), "no place in it"),
        (Georeference(rasterio.CRS.from_epsg(3413).to_wkt(), (9000, 0, -3e5, 0, -9000, 2e5)), "around a pole"),
    ],
)
def test_what_has_no_place_is_in_pixels_and_says_why(place: Georeference, why: str) -> None:
    found, (warning,) = document(place)
    assert why in warning
    assert warning in found["warnings"]
    assert found["features"] == document(None)[0]["features"]
    assert found["coordinate_system"].startswith("pixels")


def test_without_rasterio_it_is_in_pixels_and_says_why(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    source = geotiff(np.zeros((60, 80, 3), np.uint8), crs=UTM, transform=TILTED)
    monkeypatch.setattr(geodesy, "here", lambda: False)
    answer = client.post("/segment?format=geojson", content=source)
    assert answer.status_code == 200
    assert "rasterio is not installed: pip install" in answer.headers["x-warning"]
    assert answer.json()["coordinate_system"].startswith("pixels")


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@pytest.mark.parametrize("name", ["utm", "tilted", "no code"])
def test_a_geopackage_is_in_the_sources_system(tmp_path: Path, name: str) -> None:
    crs, place = PLACES[name]
    path = tmp_path / "regions.gpkg"
    path.write_bytes(gpkg(replace(result_of(LABELS, 4), georeference=Georeference(crs.to_wkt(), place[:6]))))
    meta, _, geometry, values = pyogrio.raw.read(path)
    if crs.to_epsg():
        assert rasterio.CRS.from_user_input(meta["crs"]) == crs
    fields = dict(zip(meta["fields"], values, strict=True))
    shapes = list(zip(shapely.from_wkb(geometry), fields["cluster_id"].tolist(), strict=True))
    assert (rasterize(shapes, LABELS.shape, fill=99, transform=place, dtype="uint8") == LABELS).all()
    assert fields["pixels"].sum() == LABELS.size
    assert set(fields["color"]) == {feature["properties"]["color"] for feature in document(None)[0]["features"]}


def test_a_geopackage_of_a_plain_photo_is_in_pixels(tmp_path: Path) -> None:
    path = tmp_path / "regions.gpkg"
    path.write_bytes(gpkg(result_of(LABELS, 4)))
    meta, _, geometry, _ = pyogrio.raw.read(path)
    assert meta["crs"] is None
    assert shapely.total_bounds(shapely.from_wkb(geometry)).tolist() == [0, -60, 80, 0]
    assert "gpkg" in registry.offline_names()
    assert "gpkg" not in registry.names()
