"""Points close together, or alike in color, are to have like codes: the CRF's energy as a loss.

Knows nothing of images on disk or of networks: maps in, numbers out.

Source: STEGO (arXiv:2203.08414), published code; its weight is 0 in every published run.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Kernel(NamedTuple):
    """How much two points want the same code: by place and color, and by place alone.

    The widths stand under squared distances as 2α, not 2α²: they are variances. Places are counted in cells,
    colors in the units of the map that is handed in.
    """

    alpha: float = 0.5
    beta: float = 0.15
    gamma: float = 0.05
    w1: float = 10.0
    w2: float = 3.0
    shift: float = 0.0


def affinity_loss(colors: Tensor, codes: Tensor, points: Tensor, kernel: Kernel = Kernel()) -> Tensor:  # noqa: B008
    """−kernel · ⟨code, code⟩ of every pair of points: float [B, n, n].

    colors  float [B, 3, h, w]
    codes   float [B, D, h, w], of length 1; receive gradients
    points  int64 [2, n]: rows and columns, the same for all images
    """
    rows, columns = points
    place = _squared_distances(points.to(colors)[None])
    color = _squared_distances(colors[:, :, rows, columns])
    bilateral = kernel.w1 * torch.exp(-place / (2 * kernel.alpha) - color / (2 * kernel.beta))
    spatial = kernel.w2 * torch.exp(-place / (2 * kernel.gamma))
    chosen = codes[:, :, rows, columns]
    similarity = torch.einsum("bdi,bdj->bij", chosen, chosen)
    return -similarity * (bilateral + spatial - kernel.shift)


def draw_cells(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Rows and columns of `count` cells of a grid of (h, w), each drawn by itself: int64 [2, count]."""
    return torch.stack([torch.randint(side, (count,), generator=generator) for side in size])


def pairs_of(points: Tensor, valid: Tensor | None) -> Tensor | None:
    """Which pairs of the points hold data at both ends: bool [B, n, n] of bool [B, h, w]; None: all of them."""
    if valid is None:
        return None
    inside = valid[:, points[0], points[1]]
    return inside[:, :, None] & inside[:, None]


def _squared_distances(x: Tensor) -> Tensor:
    """Of every pair of the n columns of x [B, C, n]: [B, n, n]."""
    return (x[:, :, :, None] - x[:, :, None, :]).square().sum(1)
