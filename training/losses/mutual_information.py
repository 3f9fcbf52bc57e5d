"""How much a place's cluster says of the cluster of the same place in another view, and of places around it.

Knows nothing of images, networks or views: cluster probabilities in, a number out. Everything of one displacement is
in a K×K table, the joint; only these tables are kept, whatever the size of maps and batch.

Source: Invariant Information Clustering (arXiv:1807.06653), eq. 3 to 5.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

_LEAST = 1e-8  # of a probability whose logarithm is taken


def joints(first: Tensor, second: Tensor, reach: int) -> Tensor:
    """Sums over all images and places u of first[k, u] · second[l, u + t], for every displacement t of ±reach cells.

    first, second  float [B, K, h, w]: cluster probabilities of two views on one grid, 0 where no data is
    returns        float [(2 reach + 1)², K, K], displacements row by row; places beyond the border add nothing
    """
    found: Tensor = _Joints.apply(first, second, reach)
    return found


def mutual_information(tables: Tensor, weight_entropy: float = 1.0) -> Tensor:
    """Of each joint made symmetric, in nats, float [n]: Σ P log P − λ (Σ P log Pᵢ + Σ P log Pⱼ).

    tables          float [n, K, K], not negative, of any sum; of one that is all 0 it is 0
    weight_entropy  λ: 1 is mutual information as such; more of it keeps clusters from dying out

    Source: IIC §3.1, and its published loss for λ.
    """
    sums = tables.sum((1, 2), keepdim=True)
    joint = (tables + tables.transpose(1, 2)) / (2 * sums).clamp(min=_LEAST)
    marginal = joint.sum(2).clamp(min=_LEAST).log()
    both = marginal[:, :, None] + marginal[:, None, :]
    return (joint * (joint.clamp(min=_LEAST).log() - weight_entropy * both)).sum((1, 2))


class _Joints(Function):
    """A correlation as matrix products, one for each displacement, that remembers its two maps and nothing else.

    Rows and images are set apart by `reach` zeros: a displacement is then a step along one long row of cells.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, reach: int) -> Tensor:
        ctx.save_for_backward(first, second)
        ctx.reach = reach
        here, there = _rows(first, reach), F.pad(_rows(second, reach), 2 * [_margin(first, reach)])
        return torch.stack([here @ there[:, at].T for at in _steps(first, reach)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second = ctx.saved_tensors
        reach, margin = ctx.reach, _margin(first, ctx.reach)
        here, there = _rows(first, reach), F.pad(_rows(second, reach), 2 * [margin])
        to_first, to_second = torch.zeros_like(here), torch.zeros_like(there)
        for slope, at in zip(gradients[0], _steps(first, reach), strict=True):
            to_first += slope @ there[:, at]
            to_second[:, at] += slope.T @ here
        whole = to_second[:, margin : margin + here.shape[1]]
        return _maps(to_first, first.shape, reach), _maps(whole, second.shape, reach), None


def _rows(maps: Tensor, reach: int) -> Tensor:
    """[B, K, h, w] → [K, B · (h + reach) · (w + reach)]."""
    return F.pad(maps, (0, reach, 0, reach)).transpose(0, 1).flatten(1)


def _maps(rows: Tensor, shape: torch.Size, reach: int) -> Tensor:
    """What `_rows` made long, again [B, K, h, w]."""
    count, k, height, width = shape
    padded = rows.reshape(k, count, height + reach, width + reach)
    return padded[:, :, :height, :width].transpose(0, 1)


def _margin(maps: Tensor, reach: int) -> int:
    """Cells of the farthest displacement along the row."""
    return reach * (maps.shape[3] + reach) + reach


def _steps(maps: Tensor, reach: int) -> Iterator[slice]:
    """For every displacement, where the row of cells that lie so far away is, in one with a margin at both ends."""
    count, _, height, width = maps.shape
    length = count * (height + reach) * (width + reach)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            start = _margin(maps, reach) + down * (width + reach) + right
            yield slice(start, start + length)
