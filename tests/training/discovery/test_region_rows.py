"""Regions as rows, against loops over pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from training.data.regions import NO_REGION, RegionCache
from training.discovery import region_rows
from training.discovery.region_evidence import textures
from training.features.region_codes import RegionCodes


@pytest.fixture
def cache() -> RegionCache:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    regions = np.zeros((3, 1, 16, 24), np.uint16)
    regions[:, :, :, 8:] = 1
    regions[:, :, 10:, 16:] = 2
    regions[1, :, :4, :8] = NO_REGION
    return RegionCache((Path("a"), Path("b"), Path("c")), images, regions, np.full((3, 1), 3))


@pytest.fixture
def codes() -> RegionCodes:
    generator = torch.Generator().manual_seed(0)
    image, region = torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    rows = torch.randn(9, 5, generator=generator), torch.rand(9, 2, generator=generator)
    return RegionCodes(*rows, image, torch.zeros(9, dtype=torch.int64), region)


def test_texture_is_spread_and_change_within_a_region(cache: RegionCache) -> None:
    image, ids = cache.images[1], np.where(cache.regions[1, 0] == NO_REGION, -1, cache.regions[1, 0].astype(np.int64))
    found, pixels = textures(image, ids, 3)
    lab = rgb2lab(image)
    across, down = np.abs(np.gradient(lab[..., 0], axis=1)), np.abs(np.gradient(lab[..., 0], axis=0))
    for region in range(3):
        at = ids == region
        slow = [*(lab[at][:, i].std() for i in range(3)), across[at].mean(), down[at].mean()]
        assert found[region] == pytest.approx(slow)
        assert pixels[region] == at.sum()


def test_rows_are_drawn_evenly_and_weigh_their_pixels(
    cache: RegionCache, codes: RegionCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = region_rows.sizes(codes, cache)
    assert sizes.tolist() == [128, 208, 48, 96, 208, 48, 128, 208, 48]
    rows = region_rows.sample(codes, cache, position=0.5, contrast=0.01, seed=0)
    assert rows.weight.tolist() == sizes.tolist()
    assert rows.points.shape == (9, 7)
    assert rows.code.norm(dim=1).allclose(torch.ones(9))
    monkeypatch.setattr(region_rows, "MOST", 4)
    few = region_rows.sample(codes, cache, position=0.5, contrast=0.01, seed=0)
    assert len(few) == 4
    assert few.image.diff().min() >= 0
    for row in range(4):  # whatever was drawn is what it was among all
        (same,) = (rows.points == few.points[row]).all(1).nonzero()[:, 0].tolist()
        assert rows.texture[same].allclose(few.texture[row])
        assert rows.weight[same] == few.weight[row]


def test_every_cell_has_its_regions_shares_and_none_without_data(cache: RegionCache, codes: RegionCodes) -> None:
    soft = torch.rand(9, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    maps = region_rows.soft_maps(soft, codes, cache, (4, 6))
    assert maps.shape == (3, 4, 4, 6)
    for image in range(3):
        for y in range(4):
            for x in range(6):
                region = int(cache.regions[image, 0, 4 * y + 2, 4 * x + 2])
                row = torch.zeros(4) if region == NO_REGION else soft[3 * image + region]
                assert maps[image, :, y, x].float().allclose(row, atol=1e-3)
