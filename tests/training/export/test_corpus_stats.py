"""What is counted over a corpus: every image with the same weight, whatever its shape."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
from training.export.onnx import Deployed, to_onnx

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

    def subset(self, indices: Iterable[int]) -> "Painted":
        return Painted(*(self.painted[i] for i in indices))


def by_color() -> Segmenter:
    """Cluster 0 is red, cluster 1 blue."""
    encoder = Encoder(MeanColor(), nn.Identity())
    colors = torch.tensor([RED, BLUE]).float().view(2, 3, 1, 1)
    centroids = ((colors - encoder.mean) / encoder.std).flatten(1)
    return Segmenter(encoder, centroids, "cosine", 2.0)


def measured(images: Images, **options: Any) -> CorpusStats:
    quiet = Console(file=io.StringIO())
    given = {"exemplars": 0, "workers": 0} | options
    return measure(by_color(), SPEC, images, device=torch.device("cpu"), console=quiet, **given)


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


def test_what_the_exported_network_measures_is_what_torch_measures() -> None:
    images = Painted((32, 64, 0.25), (32, 64, 0.75), (32, 64, 0.5), (32, 64, 1.0), (32, 64, 0.5), (64, 32, 0.5))
    found = by_color()
    onnx = to_onnx(Deployed(found.encoder, found.compared), SPEC)
    torch_alone, exported = measured(images), measured(images, onnx=onnx)
    assert exported.fractions.tolist() == pytest.approx(torch_alone.fractions.tolist(), abs=1e-6)
    assert exported.photos.sureness == pytest.approx(torch_alone.photos.sureness, abs=1e-4)
    assert exported.second.tolist() == torch_alone.second.tolist()


def test_threads_change_nothing() -> None:
    images = Painted(*((32, 32 + 8 * (i % 3), i / 8) for i in range(9)))
    alone, helped = measured(images), measured(images, workers=2)
    assert helped.fractions.tolist() == alone.fractions.tolist()
    assert helped.exemplars == alone.exemplars
    assert helped.similarity == alone.similarity


def test_sureness_is_of_the_margins_that_a_service_answers() -> None:
    """Those of the patch grid: of one color the margin between its own cosine and the other color's."""
    found = by_color()
    margin = float(1 - found.compared[0] @ found.compared[1])
    photos = measured(Painted((32, 64, 1.0), (32, 64, 0.0))).photos
    assert photos.margins.sum(axis=1) / photos.cells.sum(axis=1) == pytest.approx([min(1.0, margin)] * 2, abs=1e-5)
    assert photos.sureness == pytest.approx([min(1.0, margin) / 2] * 2, abs=1e-5)  # half of both together
    assert photos.shares.tolist() == [[1, 0], [0, 1]]


def test_of_two_clusters_each_is_the_others_second_choice() -> None:
    assert measured(Painted((32, 64, 0.5))).second.tolist() == [[0, 1], [1, 0]]


def test_no_more_images_than_asked_are_measured_and_their_numbers_are_the_folders() -> None:
    found = measured(Painted(*[(32, 64, 0.0)] * 6, *[(32, 64, 1.0)] * 6), most=4)
    assert found.images == 4
    assert found.photos.numbers.tolist() == [0, 3, 6, 9]
    assert found.fractions.tolist() == [0.5, 0.5]
