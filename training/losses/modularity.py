"""Clusters as communities: centers that put tokens together which are alike beyond chance.

Knows nothing of images, heads or stages: tokens and centers in, a loss out. Of the centers every pair of tokens
feels one, the one both are nearest to; which one that is is found block by block, and nothing of the size
centers × tokens × tokens is ever held.

Source: CAUSE (arXiv:2310.07379), modularity after Newman (2006).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

Metric = Literal["cosine", "euclidean"]

_BLOCK = 2**20  # products compared at once: 4 MB, which a core's cache holds
_GPU_BLOCK = 2**26
_TINY = 1e-12  # an image whose tokens are all unlike has no edges; its loss is 0


def affinity(x: Tensor, metric: Metric = "cosine") -> Tensor:
    """How alike the tokens of each image are, 0 or more, none with itself: float [B, n, n].

    x       float [B, n, D]
    metric  cosine: the cosine, 0 where negative;  euclidean: exp(−‖x_i − x_j‖² / D) of the tokens as they are
    """
    if metric == "cosine":
        unit = F.normalize(x, dim=-1)
        alike = (unit @ unit.transpose(1, 2)).clamp_(min=0)
    else:
        squares = x.square().sum(-1)
        distance = squares[:, :, None] + squares[:, None] - 2 * x @ x.transpose(1, 2)
        alike = (-distance.clamp_(min=0) / x.shape[-1]).exp_()
    alike.diagonal(dim1=1, dim2=2).zero_()
    return alike


def modularity(affinity: Tensor) -> tuple[Tensor, Tensor]:
    """What of each affinity is beyond chance, float [B, n, n], and the sum of all affinities, float [B, 1, 1].

    affinity  float [B, n, n], symmetric

    Chance is d_i d_j / e: as many edges at every token, otherwise wired at random.
    """
    degree = affinity.sum(-1)
    edges = degree.sum(-1)[:, None, None]
    return affinity - degree[:, :, None] * degree[:, None] / edges.clamp(min=_TINY), edges


def assignment(x: Tensor, centers: Tensor) -> Tensor:
    """Cosine of every token with every center, 0 where negative: float [B, n, K].

    x  float [B, n, D];  centers  float [K, D]
    """
    return (F.normalize(x, dim=-1) @ F.normalize(centers, dim=-1).T).clamp(min=0)


def modularity_loss(x: Tensor, centers: Tensor, temperature: float = 0.1) -> Tensor:
    """−mean over images of Σ_ij (W_ij / e) · δ_ij, δ_ij = max_k tanh(C_ik · C_jk / temperature): a scalar.

    x        float [B, n, D]; feels no gradient
    centers  float [K, D]; only their directions count

    Takes memory for one image's n × n, whatever B and K are. Gradients can be taken once, not twice.
    """
    x = x.detach()
    loss: Tensor = _Modularity.apply(assignment(x, centers), x, temperature)
    return loss


class _Modularity(Function):
    """The loss from the assignment C; its gradient is found along with it, so that no n × n waits for backward."""

    @staticmethod
    def forward(ctx: Any, assigned: Tensor, x: Tensor, temperature: float) -> Tensor:
        gradient = torch.zeros_like(assigned)
        total = assigned.new_zeros(())
        for one, tokens, slope in zip(assigned, x, gradient, strict=True):
            excess, edges = modularity(affinity(tokens[None]))
            excess = excess[0] / edges[0].clamp(min=_TINY)
            shared = shared_center(one)
            mine = one.gather(1, shared)  # C_ik of the center k that i and j share; C_jk is its transpose
            delta = torch.tanh(mine * mine.T / temperature)
            total -= (excess * delta).sum()
            pull = excess * (delta.square() - 1)
            slope.scatter_add_(1, shared, pull * mine.T)  # pairs (i, j) and (j, i) are alike: twice, below
        ctx.save_for_backward(gradient.mul_(2 / (temperature * len(assigned))))
        return total / len(assigned)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None


@torch.no_grad()
def shared_center(assigned: Tensor) -> Tensor:
    """The center that holds tokens i and j together best, argmax_k C_ik · C_jk: int64 [n, n], symmetric.

    assigned  float [n, K]
    """
    n, k = assigned.shape
    found = torch.empty(n, n, dtype=torch.int64, device=assigned.device)
    block = _BLOCK if assigned.device.type == "cpu" else _GPU_BLOCK
    first = 0
    while first < n:
        rest = assigned[first:]  # what lies left of it is known by symmetry
        rows = slice(first, first + max(1, block // (len(rest) * k)))
        best = (assigned[rows, None] * rest).argmax(-1)
        found[rows, first:], found[first:, rows] = best, best.T
        first = rows.stop
    return found


def draw_picks(batch: int, side: int, cell: int, generator: torch.Generator | None = None) -> Tensor:
    """One token of every cell × cell square of every image: its number in the square, int64 [batch · squares].

    side  tokens along an edge of the grid; what is left over beside the last whole square is never picked
    """
    return torch.randint(cell * cell, (batch * (side // cell) ** 2,), generator=generator)


def thin(x: Tensor, picks: Tensor, cell: int) -> Tensor:
    """The picked tokens: float [B, squares, D], row by row of squares.

    x      float [B, side · side, D], row by row
    picks  int64 [B · squares], as `draw_picks` gives them

    Source: CAUSE's "stochastic sampling".
    """
    return take(x, places(picks.to(x.device).view(len(x), -1), math.isqrt(x.shape[1]), cell))


def places(picks: Tensor, side: int, cell: int) -> Tensor:
    """Which of side · side tokens the picks mean: int64 [B, squares] of int64 [B, squares]."""
    corner = torch.arange(side // cell, device=picks.device) * cell
    corners = (corner[:, None] * side + corner).flatten()
    return corners + picks // cell * side + picks % cell


def take(x: Tensor, at: Tensor) -> Tensor:
    """Some tokens of every image: float [B, n, D] of float [B, side · side, D], at int64 [B, n]."""
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))
