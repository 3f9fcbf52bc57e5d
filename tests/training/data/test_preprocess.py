"""Neighbors of one size reach the encoder together."""

import numpy as np
import pytest

from models.io.samples import Decoded
from models.preprocess import Fit
from training.data import preprocess
from training.data.preprocess import batched


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
