"""What a crop says beside the whole image, of networks of which that is known."""

from pathlib import Path

import torch
from torch import Tensor, nn

from models.preprocess import InputSpec
from tests.training.small_run import small_run
from training.discovery.crop_stability import crop_stability, labeler
from training.discovery.segmenter import Segmenter


class OfColor(nn.Module):
    """Bright or dark, whatever is around."""

    def forward(self, pixels: Tensor) -> Tensor:
        light = pixels.float().mean(-1) - 127
        return torch.stack([light, -light], 1)


class OfPlace(nn.Module):
    """The upper half and the lower one, whatever is seen."""

    def forward(self, pixels: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, pixels.shape[1])[None, :, None].expand(pixels.shape[:3])
        return torch.stack([rows, -rows], 1)


def test_place_in_the_image_is_what_crops_take_away(tmp_path: Path) -> None:
    run, spec = small_run(tmp_path), InputSpec(size=(64, 64), multiple=16, max_side_px=256)

    def share(network: nn.Module) -> float:
        found = Segmenter(network, torch.eye(2), "dot", 1.0)  # type: ignore[arg-type]
        return crop_stability(labeler(found, spec, run.device), run.images, run.recipe.seed)

    assert share(OfColor()) > 0.97
    # A crop of three quarters lies up to an eighth off the middle: its halves are the image's but for that much.
    assert 0.8 < share(OfPlace()) < 0.95
    assert share(OfPlace()) == share(OfPlace())
