"""How images reach an encoder: what its network takes, and neighbors of one size together."""

import numpy as np
import pytest
from torch import nn

from models.io.samples import Decoded
from models.nets.backbone import Backbone
from models.nets.build import build
from models.nets.encoder import Encoder
from models.nets.tokens import TokenBackbone
from models.preprocess import Fit, InputSpec
from training.data import preprocess
from training.data.preprocess import batched, four_by_three, input_spec


def spec(backbone: Backbone, size: int, head: nn.Module | None = None) -> InputSpec:
    return input_spec(Encoder(backbone, head or nn.Identity()), size)


class Bounded(nn.Identity):
    """A head for so many tokens."""

    max_tokens = 12


@pytest.fixture(scope="module")
def relative() -> Backbone:
    """Positions of one size at a time, cells of 16 pixels."""
    return build("test_vit_relpos", "random")


def test_sides_are_whole_cells_of_any_size_where_the_network_takes_it() -> None:
    assert spec(build("test_vit", "random"), 320) == InputSpec(size=(320, 320), multiple=16, max_side_px=1280)
    assert spec(build("test_convnext", "random", levels=3), 320).multiple == 16


def test_a_network_of_one_size_gets_squares(relative: Backbone) -> None:
    assert spec(relative, 100) == InputSpec(size=(96, 96), resize="stretch", multiple=16, max_side_px=100)
    assert spec(TokenBackbone(relative, 32), 100).size == (96, 96)
    assert spec(relative, 100, Bounded()) == InputSpec(size=(48, 48), resize="stretch", multiple=16, max_side_px=48)


def test_a_photo_of_4_to_3_is_in_whole_cells() -> None:
    assert four_by_three(320) == four_by_three(320, 8) == (320, 432)
    assert four_by_three(320, 14) == (308, 420)
    assert four_by_three(320, 32) == (320, 416)
    assert four_by_three(16, 32) == (32, 32)


def item(number: int, height: int) -> tuple[Decoded, Fit]:
    pixels = np.full((height, 8, 3), number, np.uint8)
    return Decoded(pixels), Fit(pixels, (height, 8))


def numbers(items: list[tuple[Decoded, Fit]], most: int) -> list[list[int]]:
    return [[int(one.pixels[0, 0, 0]) for _, one in some] for some in batched(items, most)]


def test_batches_keep_the_order_and_hold_one_size() -> None:
    items = [item(i, 8 if i != 3 else 16) for i in range(7)]
    assert numbers(items, 2) == [[0, 1], [2], [3], [4, 5], [6]]
    assert numbers(items, 9) == [[0, 1, 2], [3], [4, 5, 6]]
    assert numbers([], 2) == []


def test_large_images_do_not_wait_for_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "_BATCH_BYTES", 2 * 8 * 8 * 3)
    assert numbers([item(i, 8) for i in range(5)], 9) == [[0, 1, 2], [3, 4]]
