"""What a TIFF says of its place, held against GDAL: files that GDAL wrote, tags in every combination, turns, levels."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.control import GroundControlPoint
from rasterio.io import MemoryFile
from rasterio.rpc import RPC
from rasterio.transform import Affine, RPCTransformer

from models.io import geodesy, tiff_georeference
from models.io.georeference import Georeference
from models.io.samples import ImageError, NoSuchPart, upright
from tests.models.io.drawn import tiff

UTM = rasterio.CRS.from_epsg(32633)
CUSTOM = rasterio.CRS.from_wkt(
    'PROJCS["no code",GEOGCS["own",DATUM["own datum",SPHEROID["own",6378000,298]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Lambert_Conformal_Conic_2SP"],PARAMETER["latitude_of_origin",40],'
    'PARAMETER["central_meridian",-3],PARAMETER["standard_parallel_1",39],PARAMETER["standard_parallel_2",43],'
    'PARAMETER["false_easting",600000],PARAMETER["false_northing",600000],UNIT["metre",1]]'
)
CORNERS = ((0, 0), (0, 30), (20, 0), (20, 30), (7.5, 11.25))


def rpcs() -> RPC:
    rng = np.random.default_rng(3)
    terms = [[1.0 if i == lead else float(v) for i, v in enumerate(rng.normal(0, 1e-4, 20))] for lead in (2, 0, 1, 0)]
    return RPC(
        height_off=400.0, height_scale=300.0, lat_off=46.5, lat_scale=0.1, long_off=9.25, long_scale=0.12,
        line_off=10.25, line_scale=11.0, samp_off=15.5, samp_scale=16.0, err_bias=None, err_rand=None,
        line_num_coeff=[-t for t in terms[0]], line_den_coeff=terms[1],
        samp_num_coeff=terms[2], samp_den_coeff=terms[3],
    )  # fmt: skip


def written(**place: Any) -> bytes:
    """GDAL's GeoTIFF, [20, 30]."""
    tags = place.pop("tags", {})
    with geodesy.gdal(), MemoryFile() as file:
        with file.open(driver="GTiff", width=30, height=20, count=1, dtype="uint8", **place) as dataset:
            dataset.write(np.zeros((20, 30), np.uint8), 1)
            dataset.update_tags(**tags)
        return bytes(file.getbuffer())


def agree(data: bytes) -> Georeference | None:
    """Ours, equal to what rasterio says of the same bytes."""
    found = tiff_georeference.read(data)
    with geodesy.gdal(), MemoryFile(data) as file, file.open() as dataset:
        points, system = dataset.gcps
        crs = system if points else dataset.crs
        if found is None:
            assert not any((dataset.crs, points, dataset.rpcs))
            assert dataset.transform == Affine.identity()
            return None
        assert geodesy.crs(found.crs) == crs
        if found.transform is None:
            assert dataset.transform == Affine.identity()
        else:
            assert np.allclose(found.transform, dataset.transform[:6], rtol=1e-12, atol=0)
        assert [tuple(p) for p in found.points] == [(p.row, p.col, p.x, p.y, p.z) for p in points]
        assert (found.rpcs is None) == (dataset.rpcs is None)
        if found.rpcs is not None:
            theirs = dataset.rpcs.to_dict()
            assert all(np.allclose(found.rpcs[name], theirs[name], rtol=1e-12) for name in theirs if "err" not in name)
        assert found.pixel_is_point == (dataset.tags().get("AREA_OR_POINT") == "Point")
    return found


@pytest.mark.parametrize(
    "place",
    [
        {"crs": UTM, "transform": Affine(10, 0, 5e5, 0, -10, 5e6)},
        {"crs": UTM, "transform": Affine(10, 0, 5e5, 0, -10, 5e6), "tags": {"AREA_OR_POINT": "Point"}},
        {"crs": UTM, "transform": Affine(10, 0, 5e5, 0, 10, 5e6)},
        {"crs": UTM, "transform": Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(2, -3)},
        {"crs": UTM, "transform": Affine.rotation(30) @ Affine.scale(2, -3), "tags": {"AREA_OR_POINT": "Point"}},
        {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 179.9, 0, -0.01, 60)},
        {"crs": "EPSG:3857", "transform": Affine(0.3, 0, -1e6, 0, -0.3, 6e6), "bigtiff": "yes"},
        {"crs": CUSTOM, "transform": Affine(0.3, 0, 6e5, 0, -0.3, 6e5)},
        {"transform": Affine(0.3, 0, 6e5, 0, -0.3, 6e5)},
        {"crs": "EPSG:27700"},
        {"rpcs": rpcs()},
        {"rpcs": rpcs(), "crs": "EPSG:4326", "transform": Affine(0.01, 0, 9, 0, -0.01, 46)},
        {"crs": UTM, "gcps": [GroundControlPoint(r, c, 5e5 + 3 * c, 5e6 - 2 * r, 7) for r, c in CORNERS]},
        {"crs": rasterio.CRS(), "gcps": [GroundControlPoint(r, c, 9 + c / 10, 46 - r / 10) for r, c in CORNERS]},
        {},
    ],
)  # fmt: skip
def test_as_gdal_reads_what_gdal_wrote(place: dict[str, Any]) -> None:
    found = agree(written(**place))
    assert (found is None) == (not place)


def test_tags_in_every_combination() -> None:
    scales = (None, (2.0, 3.0, 0.0), (2.0, -3.0, 0.0), (0.0, 3.0, 0.0), (2.0, 3.0))
    ties = (None, (1.0, 2.0, 0.0, 500.0, 700.0, 0.0), tuple(float(v) for v in range(24)), (1.0, 2.0, 0.0, 500.0))
    matrices = (None, (2.0, 0.5, 0, 100.0, 0.25, -3.0, 0, 200.0, 0, 0, 0, 0, 0, 0, 0, 1.0), (1.0, 0.0, 0.0))
    keys = (None, (1, 1, 0, 1, 1024, 0, 1, 1), (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32633))
    numbers = ((33550, 12), (33922, 12), (34264, 12), (34735, 3))
    for values in itertools.product(scales, ties, matrices, keys):
        tags = [(tag, kind, len(v), v, True) for (tag, kind), v in zip(numbers, values, strict=True) if v is not None]
        data = tiff(np.zeros((20, 30), np.uint8), extratags=tags)
        if values[0] and values[0][0] and len(values[1] or ()) < 6:  # a scale without an origin: GDAL takes 0, 0
            found = tiff_georeference.read(data)
            assert found is None or found.transform is None
        else:
            agree(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_lies_where_it_lay(orientation: int) -> None:
    tilted = Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(2, -3)
    points = [GroundControlPoint(r, c, *(tilted @ (c, r))) for r, c in CORNERS]
    placed, known, modeled = (
        turned(written(**place), orientation)
        for place in ({"crs": UTM, "transform": tilted}, {"crs": UTM, "gcps": points}, {"rpcs": rpcs()})
    )
    columns, rows = np.meshgrid(np.arange(30), np.arange(20))
    was = upright(np.stack([rows, columns], axis=-1), orientation)
    straight = tiff_georeference.read(written(rpcs=rpcs()))
    for row, column in ((0, 0), (3, 17), (was.shape[0] - 1, was.shape[1] - 1)):
        old_row, old_column = was[row, column].tolist()
        here = Affine(*placed.transform) @ (column + 0.5, row + 0.5)
        assert np.allclose(here, tilted @ (old_column + 0.5, old_row + 0.5), rtol=1e-12, atol=0)
        with RPCTransformer(RPC(**modeled.rpcs)) as new, RPCTransformer(RPC(**straight.rpcs)) as old:
            assert np.allclose(new.xy(row, column), old.xy(old_row, old_column), rtol=0, atol=1e-6)
    for point in known.points:
        assert np.allclose(Affine(*placed.transform) @ (point.column, point.row), (point.x, point.y), rtol=1e-12)


def turned(data: bytes, orientation: int) -> Georeference:
    """What the same tags say in a file whose picture is turned."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = [(t.code, t.dtype, t.count, t.value, True) for t in file.pages.first.tags if t.code > 33000]
    again = tiff(np.zeros((20, 30), np.uint8), extratags=[*tags, (274, 3, 1, orientation, True)])
    found = tiff_georeference.read(again)
    assert found is not None
    return found


def test_a_level_has_pixels_of_its_own_size(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    form = {"width": 1024, "height": 600, "count": 1, "dtype": "uint8", "tiled": True, "blockxsize": 256}
    place = {"crs": UTM, "transform": Affine(2, 0, 5e5, 0, -2, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", **form, blockysize=256, **place) as dataset:
        dataset.write(np.zeros((600, 1024), np.uint8), 1)
        dataset.build_overviews([2, 4])
    for level in (0, 1, 2):
        found = tiff_georeference.load(path, level=level)
        assert found is not None
        assert found.transform == (2.0 * 2**level, 0, 5e5, 0, -2.0 * 2**level, 5e6)
    for wrong in ({"level": 3}, {"page": 1}):
        with pytest.raises(NoSuchPart):
            tiff_georeference.load(path, **wrong)


def test_every_page_has_its_own() -> None:
    buffer = io.BytesIO()
    place = [(33550, 12, 3, (2.0, 2.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5.0, 6.0, 0.0), True)]
    with tifffile.TiffWriter(buffer) as file:
        for tags in ([], place):
            file.write(np.zeros((20, 30), np.uint8), extratags=tags, photometric="minisblack")
    assert tiff_georeference.read(buffer.getvalue()) is None
    assert tiff_georeference.read(buffer.getvalue(), page=1) == Georeference(transform=(2, 0, 5, 0, -2, 6))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_numbers_that_place_nothing_are_passed_over(bad: float) -> None:
    for tags in (
        [(33550, 12, 3, (bad, 2.0, 0.0), True), (33922, 12, 6, (9.0, 0.0, 0.0, 5.0, 6.0, 0.0), True)],
        [(34264, 12, 16, (bad,) * 16, True)],
        [(33922, 12, 12, (bad,) * 12, True)],
        [(50844, 12, 92, (bad,) * 92, True)],
        [(34735, 12, 8, (1, 1, 0, 1, 1024, 0, 1, bad), True)],
    ):
        found = tiff_georeference.read(tiff(np.zeros((20, 30), np.uint8), extratags=tags))
        assert found is None or np.isfinite(found.transform or 0).all()


def test_keys_of_nonsense_are_no_system() -> None:
    rng = np.random.default_rng(0)
    good = written(crs=CUSTOM, transform=Affine(0.3, 0, 6e5, 0, -0.3, 6e5))
    with tifffile.TiffFile(io.BytesIO(good)) as file:
        tags = [(t.code, t.dtype, t.count, t.value, True) for t in file.pages.first.tags if t.code > 33000]
        at = file.pages.first.tags[34735].valueoffset
    for _ in range(200):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            data[at + int(rng.integers(0, 2 * tags[2][2]))] = int(rng.integers(0, 256))
        found = tiff_georeference.read(bytes(data))
        assert found is None or found.transform == (0.3, 0, 6e5, 0, -0.3, 6e5) or found.pixel_is_point
    many = (1, 1, 0, 4000, *(1024, 0, 1, 1) * 4000)
    crowded = tiff_georeference.read(
        tiff(np.zeros((2, 3), np.uint8), extratags=[(34735, 3, len(many), many, True)])
    )  # fmt: skip
    assert crowded == Georeference()


def test_without_rasterio_a_place_is_still_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(crs=UTM, transform=Affine(10, 0, 5e5, 0, -10, 5e6))
    monkeypatch.setattr(geodesy, "here", lambda: False)
    assert tiff_georeference.read(data) == Georeference(None, (10, 0, 5e5, 0, -10, 5e6))


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        tiff_georeference.read(b"\x89PNG")
    (tmp_path / "empty").touch()
    with pytest.raises(ImageError):
        tiff_georeference.load(tmp_path / "empty")
