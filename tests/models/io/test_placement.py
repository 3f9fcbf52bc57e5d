"""From pixels to longitude and latitude: against GDAL's own way, edges that stay straight, 180°, poles."""

from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine, GCPTransformer, RPCTransformer
from rasterio.warp import transform

from models.io import geodesy, tiff_georeference
from models.io.georeference import Georeference
from models.io.placement import NotPlaced, Placement, to_own, to_wgs84
from tests.models.io.test_tiff_georeference import CUSTOM, UTM, rpcs, written

POINTS = [GroundControlPoint(r, c, 5e5 + 30 * c + r * c * 1e-4, 5e6 - 20 * r) for r in (0, 400, 800)
          for c in (0, 300, 700, 1000)]  # fmt: skip
SIZE = (800, 1000)
PLACES: dict[str, dict[str, Any]] = {
    "utm": {"crs": UTM, "transform": Affine(10, 0, 5e5, 0, -10, 5e6)},
    "tilted": {"crs": UTM, "transform": Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(20, -30)},
    "south up": {"crs": UTM, "transform": Affine(10, 0, 5e5, 0, 10, 5e6)},
    "degrees": {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 9, 0, -0.01, 60)},
    "old degrees": {"crs": "EPSG:4267", "transform": Affine(0.01, 0, -100, 0, -0.01, 60)},
    "no code": {"crs": CUSTOM, "transform": Affine(0.3, 0, 6e5, 0, -0.3, 6e5)},
    "coarse": {"crs": "EPSG:3035", "transform": Affine(4000, 0, 2.5e6, 0, -4000, 5.5e6)},
    "polar": {"crs": "EPSG:3413", "transform": Affine(1000, 0, -1e6, 0, -1000, -0.5e6)},
    "points": {"crs": UTM, "gcps": POINTS},
    "polynomials": {"rpcs": rpcs()},
}


def placed(name: str) -> Georeference:
    found = tiff_georeference.read(written(**PLACES[name]))
    assert found is not None
    return found


def size_of(name: str) -> tuple[int, int]:
    return (20, 30) if name == "polynomials" else SIZE


def by_gdal(name: str, corners: np.ndarray) -> np.ndarray:
    """Longitude and latitude of corners x, y."""
    place = PLACES[name]
    with geodesy.gdal():
        if "rpcs" in place:
            with RPCTransformer(RPC(**rpcs().to_dict()), RPC_HEIGHT=400, RPC_PIXEL_ERROR_THRESHOLD=1e-4) as way:
                return np.stack(way.xy(corners[:, 1], corners[:, 0], offset="ul"), axis=1)
        if "gcps" in place:
            with GCPTransformer(place["gcps"]) as way:
                x, y = way.xy(corners[:, 1], corners[:, 0], offset="ul")
        else:
            x, y = np.array([place["transform"] @ tuple(corner) for corner in corners.tolist()]).T
        return np.stack(transform(place["crs"], "EPSG:4326", list(x), list(y)), axis=1)


def border(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two rings: around a picture, and around its middle; of the second the first point comes first."""
    height, width = size
    outer = np.array([[0, 0], [0, height], [width, height], [width, 0], [0, 0]])
    inner = outer // 4 + np.array([width // 4, height // 4])
    return np.concatenate([inner, outer]), np.array([[5, 10], [0, 5]])


@pytest.mark.parametrize("name", PLACES)
def test_as_gdal_has_it_and_straight_to_a_tenth_of_a_pixel(name: str) -> None:
    placement = to_wgs84(placed(name), size_of(name))
    points, bounds = border(size_of(name))
    there, ends = placement.rings(points, bounds)
    here, _ = Placement(lambda corners: corners, placement.longest, None).rings(points, bounds)
    assert np.allclose(there, by_gdal(name, here), rtol=0, atol=2e-9 if name != "polynomials" else 1e-5)
    for (start, end), (first, last) in zip(ends, bounds, strict=True):
        assert (here[start] == points[first]).all()
        assert (here[end - 1] == points[last - 1]).all()
        ring, true = there[start:end], here[start:end]
        parts = np.array([0.25, 0.5, 0.8])[:, None, None]
        between = (true[:-1] + parts * np.diff(true, axis=0)).reshape(-1, 2)
        drawn = (ring[:-1] + parts * np.diff(ring, axis=0)).reshape(-1, 2)
        steps = np.array([[0, 0], [0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])[:, None]
        middle, right, left, below, above = placement.way((between + steps).reshape(-1, 2)).reshape(5, -1, 2)
        off = np.linalg.solve(np.stack([right - left, below - above], axis=-1), (drawn - middle)[..., None])
        assert np.abs(off).max() < 0.1


def test_edges_are_cut_only_where_they_bend() -> None:
    points, bounds = border(SIZE)
    assert len(to_wgs84(placed("degrees"), SIZE).rings(points, bounds)[0]) == len(points)
    assert len(to_wgs84(placed("utm"), SIZE).rings(points, bounds)[0]) < 20
    assert len(to_wgs84(placed("coarse"), SIZE).rings(points, bounds)[0]) > 100


@pytest.mark.parametrize(
    ("crs", "place", "west", "east"),
    [
        ("EPSG:32660", Affine(100, 0, 7e5, 0, -100, 5e6), 179, 181),
        ("EPSG:32601", Affine(100, 0, 2e5, 0, -100, 5e6), -181, -179),
        ("EPSG:4326", Affine(0.001, 0, 179.5, 0, -0.001, 5), 179.5, 180.5),
        ("EPSG:4326", Affine(0.36, 0, -180, 0, -0.2, 80), -180, 180),
        ("EPSG:3832", Affine(1000, 0, 2.9e6, 0, -1000, 0), 176, 186),
    ],
)
def test_longitudes_go_on_beyond_180(crs: str, place: Affine, west: float, east: float) -> None:
    found = Georeference(rasterio.CRS.from_string(crs).to_wkt(), place[:6])
    there, _ = to_wgs84(found, SIZE).rings(*border(SIZE))
    longitudes = there[:, 0]
    turn = 360 * round((longitudes.mean() - (west + east) / 2) / 360)
    assert west - 1 <= longitudes.min() - turn
    assert longitudes.max() - turn <= east + 1
    assert np.ptp(longitudes) > 0.9 * (east - west) - 2
    assert -185 <= longitudes.mean() <= 185


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Georeference(), "no place in it"),
        (Georeference(transform=(1, 0, 5, 0, -1, 5)), "which coordinate system"),
        (Georeference("nonsense", (1, 0, 5, 0, -1, 5)), "not known"),
        (Georeference('LOCAL_CS["of a building",UNIT["metre",1]]', (1, 0, 5, 0, -1, 5)), "cannot be brought"),
        (Georeference(UTM.to_wkt(), (1e9, 0, 5, 0, -1e9, 5)), "cannot be brought|no longitude"),
        (Georeference(rasterio.CRS.from_epsg(3413).to_wkt(), (1000, 0, -5e5, 0, -1000, 4e5)), "around a pole"),
    ],
)
def test_what_has_no_place_says_why(found: Georeference, why: str) -> None:
    with pytest.raises(NotPlaced, match=why):
        to_wgs84(found, SIZE)


def test_its_own_coordinates_are_its_own() -> None:
    corners = np.array([[0, 0], [1000, 0], [1000, 800], [0, 0]])
    own = to_own(placed("tilted"), SIZE)
    there, _ = own.rings(corners, np.array([[0, 4]]))
    assert own.crs is not None
    assert geodesy.crs(own.crs) == UTM
    assert np.allclose(
        there, [PLACES["tilted"]["transform"] @ tuple(corner) for corner in corners.tolist()], rtol=1e-14
    )
    by_points = to_own(placed("points"), SIZE)
    assert geodesy.crs(by_points.crs) == UTM
    assert np.allclose(by_points.rings(corners[:3], np.array([[0, 3]]))[0][0], (5e5, 5e6), atol=1)
    assert to_own(placed("polynomials"), (20, 30)).crs == geodesy.WGS84


def test_without_rasterio_nothing_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = placed("utm")
    monkeypatch.setattr(geodesy, "here", lambda: False)
    with pytest.raises(NotPlaced, match=r"rasterio is not installed: pip install 'tessera-segmentation\[geo\]'"):
        to_wgs84(found, SIZE)


def test_polynomials_that_lead_nowhere_are_no_place() -> None:
    wild = {**rpcs().to_dict(), "line_num_coeff": [1e9] * 20, "samp_num_coeff": [-1e9] * 20}
    with pytest.raises(NotPlaced):
        to_wgs84(Georeference(rpcs=wild), SIZE)
