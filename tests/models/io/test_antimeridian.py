"""Polygons cut at 180°: their areas stay, parts are valid and turn the right way. Judged by shapely."""

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from models.io.antimeridian import parts_of
from models.polygons import regions


def shape(parts: list[list[NDArray[np.float64]]]) -> shapely.MultiPolygon:
    found = shapely.MultiPolygon([(part[0], part[1:]) for part in parts])
    assert found.is_valid, shapely.is_valid_reason(found)
    for polygon in found.geoms:
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)
    return found


@pytest.mark.parametrize("west", [179.35, 179.4, -180.25, -180.6, 539.2, 172.0, -175.0])
@pytest.mark.parametrize("size", [0.05, 0.1])
def test_regions_of_random_maps(west: float, size: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2 + seed % 2, (14, 15)).astype(np.uint8)
        for region in regions(labels).moved(np.array([west, 50.0]) + size * regions(labels).points * [1, -1]):
            whole = shapely.Polygon(region.rings[0], region.rings[1:])
            parts = shape(parts_of(region.rings))
            assert np.isclose(parts.area, whole.area, rtol=1e-6)
            assert parts.bounds[0] >= -180
            assert parts.bounds[2] <= 180
            line = 360 * np.floor((west + 180) / 360) + 180  # of which there is a part on either side, or one alone
            east = shapely.box(line, 0, line + 180, 90).intersection(whole)
            assert np.isclose(shapely.box(-180, 0, 0, 90).intersection(parts).area, east.area, atol=1e-9) or west < 0


def test_a_ring_around_the_meridian_with_a_hole_on_it() -> None:
    outline = np.array([[170, 0], [190, 0], [190, 20], [170, 20], [170, 0]], float)
    hole = np.array([[178, 5], [178, 15], [182, 15], [182, 5], [178, 5]], float)
    aside = np.array([[172, 5], [172, 6], [173, 6], [173, 5], [172, 5]], float)
    parts = shape(parts_of([outline, hole, aside]))
    assert parts.area == 400 - 40 - 1
    assert len(parts.geoms) == 2
    assert sum(len(part.interiors) for part in parts.geoms) == 1


def test_what_crosses_nothing_stays_as_it_is() -> None:
    ring = np.array([[-180, 0], [180, 0], [180, 20], [-180, 20], [-180, 0]], float)
    (part,) = parts_of([ring])
    assert part[0] is ring
