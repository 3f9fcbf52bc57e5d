"""Which regions a view shows is what nearest pixels of the map say."""

from pathlib import Path

import numpy as np
import torch

from training.data.augment import ViewOptions, draw_crops
from training.data.region_views import region_maps, shown_regions
from training.data.regions import NO_REGION, RegionCache


def cache() -> RegionCache:
    """Three images of 12×16 pixels at two scales: squares of four pixels, and of two; one corner has no data."""
    rows, columns = np.mgrid[:12, :16]
    coarse, fine = (rows // 4) * 4 + columns // 4, (rows // 2) * 8 + columns // 2
    regions = np.stack([np.stack([coarse, fine])] * 3).astype(np.uint16)
    regions[:, :, :4, :4] = NO_REGION
    paths = tuple(Path(f"{i}.png") for i in range(3))
    return RegionCache(paths, np.zeros((3, 12, 16, 3), np.uint8), regions, np.array([[12, 48]] * 3))


def test_maps_are_of_the_scale_that_is_asked_for() -> None:
    rows = torch.tensor([2, 0])
    one = region_maps(cache(), rows, 1)
    each = region_maps(cache(), rows, torch.tensor([0, 1]))
    assert one.shape == each.shape == (2, 1, 12, 16)
    assert torch.equal(each[1], one[1])
    assert (int(each[0].max()), int(one[0].max())) == (11, 47)
    assert (each[:, 0, :4, :4] == -1).all()


def test_a_cell_has_the_id_that_lies_under_its_middle() -> None:
    generator = torch.Generator().manual_seed(3)
    crops = draw_crops(3, ViewOptions(size=(12, 16), area=(0.3, 0.9)), generator)
    maps = region_maps(cache(), torch.arange(3), 0)
    found = shown_regions(maps, crops, (3, 4))
    for image, (x_of, y_of) in enumerate(crops.tolist()):
        for row in range(3):
            for column in range(4):
                across, down = (2 * column + 1) / 4 - 1, (2 * row + 1) / 3 - 1  # -1..1 in the view
                x = (x_of[0] * across + x_of[2] + 1) / 2 * 16
                y = (y_of[1] * down + y_of[2] + 1) / 2 * 12
                assert found[image, row, column] == maps[image, 0, int(y), int(x)]
