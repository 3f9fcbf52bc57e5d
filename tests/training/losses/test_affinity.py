"""The CRF's energy as a loss: near and alike attract, far and unlike do not."""

import math

import pytest
import torch
from torch.nn import functional as F

from training.losses.affinity import Kernel, affinity_loss, draw_cells


def pair(colors: torch.Tensor, columns: list[int], kernel: Kernel) -> float:
    """The kernel of two cells of a row, read off codes that are all alike."""
    codes = F.normalize(torch.ones(1, 2, 1, colors.shape[-1]), dim=1)
    points = torch.tensor([[0, 0], columns])
    return -float(affinity_loss(colors, codes, points, kernel)[0, 0, 1])


def test_two_cells_by_hand() -> None:
    kernel = Kernel(alpha=2.0, beta=0.5, gamma=3.0, w1=5.0, w2=7.0, shift=0.25)
    colors = torch.zeros(1, 3, 1, 4)
    colors[0, :, 0, 3] = torch.tensor([1.0, 0.0, -1.0])
    wanted = 5 * math.exp(-9 / 4 - 2 / 1) + 7 * math.exp(-9 / 6) - 0.25
    assert pair(colors, [0, 3], kernel) == pytest.approx(wanted, rel=1e-5)


def test_falls_with_distance_and_with_color() -> None:
    flat, ramp = torch.zeros(1, 3, 1, 6), torch.linspace(0, 1, 6).expand(1, 3, 1, 6)
    near, far = (pair(flat, [0, column], Kernel(alpha=4.0)) for column in (1, 5))
    assert near > far > 0
    assert pair(ramp, [0, 5], Kernel(alpha=4.0)) < far


def test_alike_neighbors_pull_their_codes_together() -> None:
    codes = torch.tensor([[1.0, 0.0], [0.6, 0.8]]).T.reshape(1, 2, 1, 2).requires_grad_()
    points = torch.tensor([[0, 0], [0, 1]])
    affinity_loss(torch.zeros(1, 3, 1, 2), codes, points).mean().backward()
    assert codes.grad is not None
    assert float(codes.grad[0, :, 0, 0] @ torch.tensor([0.6, 0.8])) < 0  # down the gradient is towards the other


def test_cells_lie_on_the_grid() -> None:
    drawn = draw_cells(300, (3, 7), torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 300)
    assert set(drawn[0].tolist()) == set(range(3))
    assert set(drawn[1].tolist()) == set(range(7))
    assert torch.equal(drawn, draw_cells(300, (3, 7), torch.Generator().manual_seed(0)))
