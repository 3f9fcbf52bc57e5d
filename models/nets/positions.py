"""Position embeddings of one grid of patches for another.

Knows nothing of networks, nor of who resamples how (families.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Resampling(NamedTuple):
    """How a family's authors resample, always bicubic.

    offset     added to the wanted number of rows and columns before it is divided by the trained one
    antialias  torch's `antialias`: a kernel that widens where the grid shrinks, a = −0.5 in place of −0.75
    """

    offset: float
    antialias: bool


DINO = Resampling(offset=0.1, antialias=False)


def resample_positions(
    positions: Tensor, grid: tuple[int, int], height: int, width: int, how: Resampling = DINO
) -> Tensor:
    """Position embeddings [1, g·g, C] of a g×g grid for a height×width one: [1, height·width, C].

    Two small matrices of cubic weights rather than `interpolate`: they export to ONNX with free sizes, and no graph
    depends on Resize with antialias, which OpenVINO reads without a word as Resize without it.
    """
    rows, columns = grid
    table = positions.reshape(rows, columns, -1)
    wanted = torch.stack([torch.scalar_tensor(height), torch.scalar_tensor(width)])
    trained = torch.tensor([float(rows), float(columns)])
    same = (wanted == trained).all()
    scale = torch.where(same, torch.ones(2), (wanted + how.offset) / trained).to(positions)
    weights = antialiased_weights if how.antialias else cubic_weights
    down = weights(height, rows, scale[0])
    across = weights(width, columns, scale[1])
    table = torch.einsum("hr,rcd->hcd", down, table)
    table = torch.einsum("wc,hcd->hwd", across, table)
    return table.reshape(1, -1, table.shape[-1])


def cubic_weights(out: int, grid: int, scale: Tensor) -> Tensor:
    """Weights [out, grid] of cubic convolution (a = −0.75), half-pixel centers, border repeated."""
    at = (torch.arange(out, device=scale.device, dtype=scale.dtype) + 0.5) / scale - 0.5
    low = at.floor()
    cells = torch.arange(grid, device=scale.device, dtype=scale.dtype)
    weights = torch.zeros(1, grid, device=scale.device, dtype=scale.dtype)
    for tap in (-1, 0, 1, 2):
        cell = (low + tap).clamp(0, grid - 1)
        weight = _cubic((at - (low + tap)).abs(), -0.75)
        weights = weights + weight[:, None] * (cells[None] == cell[:, None]).to(weight)
    return weights


def antialiased_weights(out: int, grid: int, scale: Tensor) -> Tensor:
    """Weights [out, grid] of cubic convolution (a = −0.5) over 1/scale cells where that is more than one.

    What would lie beyond the border is left out, and the rest of the weights brought to a sum of 1.
    """
    at = (torch.arange(out, device=scale.device, dtype=scale.dtype) + 0.5) / scale
    cells = torch.arange(grid, device=scale.device, dtype=scale.dtype) + 0.5
    distance = (cells[None] - at[:, None]).abs() / (1 / scale).clamp(min=1)
    weights = _cubic(distance.clamp(max=2), -0.5)
    return weights / weights.sum(1, keepdim=True)


def _cubic(d: Tensor, a: float) -> Tensor:
    """Keys' kernel at distances 0..2."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, far)
