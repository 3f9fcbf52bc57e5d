"""Two views: drawn once, lit apart, and cropped alike before and after the network."""

import numpy as np
import torch
from torch.nn import functional as F

from training.methods.picie.augment import AugmentSection, Geometric, draw_views, resized_crop


def test_the_same_epoch_draws_the_same_views():
    options = AugmentSection()
    assert draw_views(options, 1, 2, 3) == draw_views(options, 1, 2, 3)
    assert len({draw_views(options, *key) for key in ((1, 2, 3), (0, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4
    views = draw_views(options, 1, 2, 3)
    assert views.first != views.second


def test_everything_happens_as_often_as_it_should():
    views = [draw_views(AugmentSection(), 0, 0, i) for i in range(600)]
    lights = [light for v in views for light in (v.first, v.second)]
    for name, share in (("brightness", 0.8), ("contrast", 0.8), ("saturation", 0.8), ("hue", 0.8), ("blur", 0.5)):
        happened = [getattr(light, name) is not None for light in lights]
        assert abs(np.mean(happened) - share) < 0.06, name
    assert abs(np.mean([light.gray for light in lights]) - 0.2) < 0.05  # never, upstream
    assert abs(np.mean([v.crop.mirror for v in views]) - 0.5) < 0.08
    assert all(0.5 <= v.crop.scale <= 1 for v in views)


def test_a_whole_crop_changes_nothing():
    maps = torch.rand(2, 5, 16, 16)
    assert torch.allclose(resized_crop(maps, [Geometric()] * 2, 16), maps)
    assert torch.allclose(resized_crop(maps, [Geometric(mirror=True)] * 2, 16), maps.flip(-1))


def test_a_feature_map_is_cropped_as_its_image_is():
    """A network that averages 4×4 pixels commutes with the crop: before or after gives the same map."""
    side = 64
    rows, columns = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    image = torch.stack([rows, columns, (6 * rows).sin() * (5 * columns).cos()])[None]
    for i in range(20):
        how = draw_views(AugmentSection(), 0, 0, i).crop
        before = F.avg_pool2d(resized_crop(image, [how], side), 4)
        after = resized_crop(F.avg_pool2d(image, 4), [how], side // 4)
        assert float((before - after).abs().mean()) < 1.5 / (side // 4)  # at most about a cell's rounding
        if how.mirror:
            unmirrored = resized_crop(F.avg_pool2d(image, 4), [Geometric(how.scale, how.row, how.column)], side // 4)
            assert float((before - unmirrored).abs().mean()) > float((before - after).abs().mean())
