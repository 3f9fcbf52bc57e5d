"""Regions are valid polygons of exactly their pixels, with and without a compiler."""

from collections.abc import Iterator

import numpy as np
import pytest
import shapely
from rasterio import features

from models import polygons
from models.native import bindings
from models.polygons import Region, Regions, TooManyRegions, regions, without_specks
from models.types import Array

NOTHING = 255


def label_maps() -> Iterator[Array]:
    """Noise and blocks of few and of many ids, one pixel, one row, one column."""
    rng = np.random.default_rng(7)
    for height, width, k in ((1, 1, 1), (1, 40, 3), (40, 1, 3), (12, 17, 2), (14, 20, 3), (9, 9, 254)):
        noise = rng.integers(0, k, (height, width)).astype(np.uint8)
        yield noise
        yield np.ascontiguousarray(np.kron(noise, np.ones((3, 2), np.uint8)))
    yield np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]], np.uint8)


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, one after the other."""
    if request.param == "plain":
        monkeypatch.setattr(bindings, "_library", lambda: None)
    elif not bindings.compiled():
        pytest.skip("no compiler was there when this was installed")


def polygon(region: Region) -> shapely.Polygon:
    shape = shapely.Polygon(region.rings[0], region.rings[1:])
    assert shape.is_valid, shapely.is_valid_reason(shape)
    assert shape.exterior.is_ccw
    assert not any(ring.is_ccw for ring in shape.interiors)
    return shape


def drawn(found: Regions, shape: tuple[int, int]) -> Array:
    """The label map that the polygons say; no pixel is in two of them."""
    labels = np.full(shape, NOTHING, np.uint8)
    count = np.zeros(shape, int)
    for region in found:
        inside = features.rasterize([polygon(region)], shape) == 1
        assert inside.sum() == region.pixels == polygon(region).area
        labels[inside] = region.id
        count += inside
    assert count.max(initial=0) <= 1
    return labels


@pytest.mark.usefixtures("way")
def test_polygons_are_valid_and_cover_exactly_their_pixels() -> None:
    for labels in label_maps():
        found = regions(labels)
        assert (drawn(found, labels.shape) == labels).all()
        assert len(found) == len(list(found)) == sum(1 for _ in features.shapes(labels, connectivity=4))


@pytest.mark.usefixtures("way")
def test_small_regions_and_an_id_are_left_out() -> None:
    for labels in label_maps():
        kept = without_specks(labels, 4, NOTHING)
        assert (drawn(regions(labels, min_area=4), labels.shape) == kept).all()
        assert (drawn(regions(kept, ignored=NOTHING), labels.shape) == kept).all()
        without = np.where(labels == 0, NOTHING, labels)
        assert (drawn(regions(labels, ignored=0), labels.shape) == without).all()
        assert (without_specks(labels, 1, NOTHING) == labels).all()


@pytest.mark.usefixtures("way")
def test_every_region_has_the_mean_margin_of_its_pixels() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (20, 31)).astype(np.uint8)
    for margin in (rng.random((20, 31)), rng.random((3, 4)), rng.random((40, 62))):
        shown = margin[np.arange(20) * len(margin) // 20][:, np.arange(31) * margin.shape[1] // 31]
        for region in regions(labels, margin.astype(np.float32)):
            inside = features.rasterize([polygon(region)], labels.shape) == 1
            assert region.score == pytest.approx(shown[inside].mean(), abs=1e-6)
    assert {region.score for region in regions(labels)} == {0}


def test_compiled_and_plain_are_the_same_to_the_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = [regions(labels, min_area=2) for labels in label_maps()]
    monkeypatch.setattr(bindings, "_library", lambda: None)
    for ours, labels in zip(compiled, label_maps(), strict=True):
        plain = regions(labels, min_area=2)
        for field in ("ids", "pixels", "points", "bounds", "first"):
            assert (getattr(ours, field) == getattr(plain, field)).all(), field


@pytest.mark.usefixtures("way")
def test_a_map_of_more_corners_than_are_told_is_refused_unless_specks_are_dropped() -> None:
    noise = np.random.default_rng(5).integers(0, 4, (60, 60)).astype(np.uint8)
    noise[20:40, 20:40] = 1
    for most in (100, 2_000, len(regions(noise).points) - 1):
        with pytest.raises(TooManyRegions, match="more than"):
            regions(noise, most=most)
    assert len(regions(noise, most=len(regions(noise).points))) > 1000
    assert regions(noise, most=2_000, min_area=300).ids.tolist() == [1]


@pytest.mark.parametrize("scale", [(0.5, 0.5), (0.5, -0.5), (-2.0, 3.0), (-1.0, -1.0)])
def test_outlines_are_counterclockwise_in_other_coordinates_too(scale: tuple[float, float]) -> None:
    labels = np.kron(np.random.default_rng(9).integers(0, 2, (9, 9)), np.ones((3, 3), int)).astype(np.uint8)
    found = regions(labels)
    moved = found.moved(found.points * np.array(scale) + [7.0, 48.0])
    for before, after in zip(found, moved, strict=True):
        assert polygon(after).area == pytest.approx(before.pixels * abs(scale[0] * scale[1]))
        assert after[:3] == before[:3]
        assert len(after.rings) == len(before.rings)


def test_a_map_of_nothing_has_no_regions() -> None:
    found = regions(np.full((4, 4), NOTHING, np.uint8), ignored=NOTHING)
    assert len(found) == 0
    assert list(found.moved(found.points * 2.0)) == []
    assert polygons.MOST_CORNERS >= 1_000_000
