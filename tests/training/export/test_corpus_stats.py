"""What is counted over a corpus: every image with the same weight, whatever its shape."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from models.io.samples import Decoded
from models.nets.encoder import Encoder
from models.preprocess import InputSpec
from tests.training.toy_method import MeanColor
from training.data.images import Images
from training.discovery.segmenter import Segmenter
from training.export.corpus_stats import CorpusStats, measure

RED, BLUE = (200, 30, 30), (30, 30, 200)
SPEC = InputSpec(size=(32, 32), multiple=8, max_side_px=512)


class Painted(Images):
    """Images of (H, W) whose left part is red and the rest blue."""

    def __init__(self, *painted: tuple[int, int, float]) -> None:
        super().__init__(Path(), [Path(f"{i}.png") for i in range(len(painted))])
        self.painted = painted

    def load(self, i: int) -> Decoded:
        height, width, red = self.painted[i]
        image = np.full((height, width, 3), BLUE, np.uint8)
        image[:, : round(red * width)] = RED
        return Decoded(image)


def by_color() -> Segmenter:
    """Cluster 0 is red, cluster 1 blue."""
    encoder = Encoder(MeanColor(), nn.Identity())
    colors = torch.tensor([RED, BLUE]).float().view(2, 3, 1, 1)
    centroids = ((colors - encoder.mean) / encoder.std).flatten(1)
    return Segmenter(encoder, centroids, "cosine", 2.0)


def measured(images: Images) -> CorpusStats:
    quiet = Console(file=io.StringIO())
    return measure(by_color(), SPEC, images, exemplars=0, device=torch.device("cpu"), console=quiet, workers=0)


def test_every_image_weighs_the_same_whatever_its_shape() -> None:
    """A panorama has eight times the pixels of a square, and all three say as much as the next."""
    found = measured(Painted((32, 256, 1.0), (32, 32, 0.0), (64, 64, 0.0)))
    assert found.fractions.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert found.presence.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert found.images == 3


def test_shares_are_those_of_the_pixels_within_an_image() -> None:
    found = measured(Painted((32, 64, 0.25), (32, 64, 0.75), (32, 64, 0.5)))
    assert found.fractions.tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert found.presence.tolist() == [1, 1]
    assert found.entropy == pytest.approx(1, abs=1e-3)
