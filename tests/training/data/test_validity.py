"""Where an image holds data: on a grid, in a label map, among random places."""

import numpy as np
import torch

from training.data import validity

LEFT = np.arange(8) >= 3  # three columns of eight hold nothing


def test_a_cell_counts_where_half_of_it_holds_data() -> None:
    valid = np.broadcast_to(LEFT, (8, 8))
    found = validity.cells(valid, (2, 4))
    assert found is not None
    assert found.tolist() == [[False, True, True, True]] * 2  # the second cell is half and half
    assert validity.cells(valid, (8, 8)).tolist() == valid.tolist()  # type: ignore[union-attr]
    assert validity.cells(valid, (16, 16)).tolist() == np.kron(valid, np.ones((2, 2))).tolist()  # type: ignore[union-attr]


def test_everywhere_is_none() -> None:
    assert validity.cells(None, (2, 2)) is None
    assert validity.cells(np.ones((8, 8), bool), (2, 2)) is None
    assert validity.stacked([None, None], (2, 2)) is None
    labels = np.zeros((4, 4), np.uint8)
    assert validity.ignored(labels, None) is labels


def test_label_maps_say_nothing_of_gaps() -> None:
    found = validity.ignored(np.full((4, 4), 7, np.uint8), np.broadcast_to(LEFT, (8, 8)))
    assert found.dtype == np.uint8
    assert found.tolist() == [[255, 7, 7, 7]] * 4


def test_masks_of_several_images() -> None:
    mask = np.array([[True, False]])
    found = validity.stacked([None, mask], (1, 2))
    assert found is not None
    assert found.tolist() == [[[True, True]], [[True, False]]]


def test_drawn_places_hold_data() -> None:
    valid = torch.tensor([[False, True, False, True], [True, False, False, False]])
    drawn = validity.draw(valid, 50, torch.Generator().manual_seed(0))
    assert set(drawn[0].tolist()) == {1, 3}
    assert set(drawn[1].tolist()) == {0}


def test_the_mean_is_of_what_holds_data() -> None:
    values, valid = torch.tensor([1.0, 2.0, 90.0]), torch.tensor([True, True, False])
    assert float(validity.mean(values, valid)) == 1.5
    assert float(validity.mean(values, None)) == 31
    assert float(validity.mean(values, torch.zeros(3, dtype=torch.bool))) == 0


def test_rows_are_the_cells_that_hold_data() -> None:
    maps = torch.arange(8.0).reshape(2, 2, 2)
    assert validity.rows(maps, None).tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert validity.rows(maps, np.array([[False, True], [True, True]])).tolist() == [[1, 5], [2, 6], [3, 7]]
