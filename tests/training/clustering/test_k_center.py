"""Rows that are far apart come first, each once."""

import numpy as np

from training.clustering.k_center import k_center


def test_every_row_is_the_farthest_from_those_before() -> None:
    points = np.array([[0.0], [1.0], [10.0], [9.0], [4.0]])
    assert k_center(points, 3) == [0, 2, 4]
    assert k_center(points, 2, first=3) == [3, 0]


def test_equal_rows_are_taken_once_each_and_no_more_than_there_are() -> None:
    assert k_center(np.zeros((3, 2)), 5) == [0, 1, 2]
    assert k_center(np.zeros((0, 2)), 5) == []
    assert k_center(np.ones((3, 2)), 0) == []
