"""Joints by a loop over places and displacements, information by its definition, and what is kept for the gradients."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.losses.mutual_information import joints, mutual_information


def drawn(seed: int, k: int = 3, shape: tuple[int, int, int] = (2, 4, 5)) -> Tensor:
    """Cluster probabilities float64 [B, K, h, w]."""
    generator = torch.Generator().manual_seed(seed)
    count, height, width = shape
    return torch.randn(count, k, height, width, generator=generator, dtype=torch.float64).mul(2).softmax(1)


def looped(first: Tensor, second: Tensor, reach: int) -> Tensor:
    """Place by place."""
    count, k, height, width = first.shape
    side = 2 * reach + 1
    found = [torch.zeros(k, k, dtype=first.dtype) for _ in range(side * side)]
    for image in range(count):
        for row in range(height):
            for column in range(width):
                for down in range(-reach, reach + 1):
                    for right in range(-reach, reach + 1):
                        y, x = row + down, column + right
                        if 0 <= y < height and 0 <= x < width:
                            at = (down + reach) * side + right + reach
                            found[at] = found[at] + torch.outer(first[image, :, row, column], second[image, :, y, x])
    return torch.stack(found)


@pytest.mark.parametrize("reach", [0, 1, 3, 6])  # the last is wider than the maps
def test_joints_and_their_gradients_are_those_of_a_loop_over_places(reach: int) -> None:
    first, second = drawn(0).requires_grad_(), drawn(1).requires_grad_()
    wanted, found = looped(first, second, reach), joints(first, second, reach)
    assert found.shape == ((2 * reach + 1) ** 2, 3, 3)
    torch.testing.assert_close(found, wanted)
    slope = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for got, want in zip(
        torch.autograd.grad((found * slope).sum(), (first, second)),
        torch.autograd.grad((wanted * slope).sum(), (first, second)),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_nothing_but_the_maps_and_the_tables_is_kept_for_the_gradients() -> None:
    """441 displaced copies of the maps would be 441 times as much."""
    first, second = drawn(0).requires_grad_(), drawn(1).requires_grad_()
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        joints(first, second, 10)
    assert sum(kept) == first.numel() + second.numel()


def by_definition(table: np.ndarray, weight: float) -> float:
    """Entropies and the logarithms of pairs, one at a time."""
    joint = (table + table.T) / (2 * table.sum())
    marginal, found = joint.sum(1), 0.0
    for i in range(len(joint)):
        for j in range(len(joint)):
            if joint[i, j] > 0:
                found += joint[i, j] * (math.log(joint[i, j]) - weight * math.log(marginal[i] * marginal[j]))
    return found


@pytest.mark.parametrize("weight", [1.0, 1.5])
def test_information_is_that_of_the_definition(weight: float) -> None:
    tables = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 30
    wanted = [by_definition(table.numpy(), weight) for table in tables]
    assert mutual_information(tables, weight).tolist() == pytest.approx(wanted)


def test_information_is_most_where_clusters_agree_and_none_where_they_say_nothing() -> None:
    agreeing, independent, one = torch.eye(4), torch.ones(4, 4), torch.zeros(4, 4)
    one[0, 0] = 9.0  # everything is one cluster
    found = mutual_information(torch.stack([agreeing, independent, one, torch.zeros(4, 4)]))
    assert found.tolist() == pytest.approx([math.log(4), 0, 0, 0], abs=1e-5)


def test_a_table_without_data_leaves_finite_gradients() -> None:
    empty = torch.zeros(1, 3, 3, requires_grad=True)
    mutual_information(empty).sum().backward()
    assert empty.grad is not None
    assert torch.isfinite(empty.grad).all()
