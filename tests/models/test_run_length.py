"""Run lengths are those of pycocotools, character for character, with and without a compiler."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from models.native import bindings
from models.run_length import Run, plain_run_lengths, run_lengths
from models.types import Array

WAYS: list[Callable[..., list[Run]]] = [run_lengths, plain_run_lengths]


def label_maps() -> Iterator[Array]:
    """Noise, blocks, one id, one column, one row, more columns than are turned at once, all ids."""
    rng = np.random.default_rng(4)
    for height, width, k in ((1, 1, 1), (1, 9, 3), (9, 1, 3), (64, 65, 2), (37, 130, 27), (8, 64, 5)):
        noise = rng.integers(0, k, (height, width)).astype(np.uint8)
        yield noise
        yield np.ascontiguousarray(np.kron(noise, np.ones((9, 5), np.uint8)))
    yield np.full((5, 70), 254, np.uint8)
    yield np.arange(256, dtype=np.uint8).reshape(16, 16)
    yield rng.integers(0, 3, (1, 32_000)).astype(np.uint8)
    yield rng.integers(0, 3, (32_000, 1)).astype(np.uint8)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_id_is_as_pycocotools_writes_it(way: Callable[..., list[Run]]) -> None:
    for labels in label_maps():
        size = list(labels.shape)
        found, plain = way(labels), way(labels, compressed=False)
        assert [run.id for run in found] == [run.id for run in plain] == np.unique(labels).tolist()
        for run, numbers in zip(found, plain, strict=True):
            inside = labels == run.id
            theirs: Any = mask.encode(np.asfortranarray(inside))
            assert run.counts == theirs["counts"].decode()
            assert run.pixels == numbers.pixels == inside.sum() == mask.area(theirs)
            assert not isinstance(numbers.counts, str)
            again = mask.frPyObjects({"size": size, "counts": numbers.counts.tolist()}, *size)
            assert again["counts"] == theirs["counts"]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_ignored_id_is_left_out_and_the_others_are_the_same(way: Callable[..., list[Run]]) -> None:
    labels = np.random.default_rng(1).integers(0, 4, (30, 70)).astype(np.uint8)
    labels[10:20] = 255
    everything = way(labels)
    assert way(labels, ignored=255) == everything[:-1]
    assert way(np.full((3, 3), 255, np.uint8), ignored=255) == []


def test_a_map_without_pixels_has_no_ids() -> None:
    assert run_lengths(np.zeros((0, 5), np.uint8)) == plain_run_lengths(np.zeros((5, 0), np.uint8)) == []


@pytest.mark.skipif(not bindings.compiled(), reason="no compiler was there when this was installed")
def test_rows_that_are_not_side_by_side_in_memory_are_read_as_they_are() -> None:
    labels = np.random.default_rng(2).integers(0, 5, (40, 80)).astype(np.uint8)
    assert run_lengths(labels[::2, ::3]) == run_lengths(labels[::2, ::3].copy()) == plain_run_lengths(labels[::2, ::3])
