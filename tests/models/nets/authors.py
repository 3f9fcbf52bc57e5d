"""How each family's authors bring position embeddings [1, C, g, g] to h×w patches, by torch's own `interpolate`."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor

Grid = tuple[int, int]


def dino(table: Tensor, grid: Grid) -> Tensor:
    """DINO's, iBOT's and DINOv2's hub: a small number is added; nothing is done at the trained size."""
    trained = table.shape[2:]
    if tuple(trained) == grid:
        return table
    scale = ((grid[0] + 0.1) / trained[0], (grid[1] + 0.1) / trained[1])
    return F.interpolate(table, scale_factor=scale, mode="bicubic")


def dinov2_registers(table: Tensor, grid: Grid) -> Tensor:
    """The hub's `interpolate_offset=0.0, interpolate_antialias=True`: a size, not a scale."""
    return F.interpolate(table, size=grid, mode="bicubic", antialias=True)


def msn(table: Tensor, grid: Grid) -> Tensor:
    """√(n / N) of a square; each side's own, as the same file has it for attention, of any other."""
    count = table.shape[2] * table.shape[3]
    scale: float | tuple[float, float] = math.sqrt(grid[0] * grid[1] / count)
    if grid[0] != grid[1]:
        scale = (grid[0] / math.sqrt(count), grid[1] / math.sqrt(count))
    return F.interpolate(table, scale_factor=scale, mode="bicubic")


def mae(table: Tensor, grid: Grid) -> Tensor:
    """MAE's and DeiT's `interpolate_pos_embed`."""
    return F.interpolate(table, size=grid, mode="bicubic", align_corners=False)


def timms(table: Tensor, grid: Grid) -> Tensor:
    flat = table.flatten(2).transpose(1, 2)
    out = resample_abs_pos_embed(flat, list(grid), list(table.shape[2:]), num_prefix_tokens=0)
    return out.transpose(1, 2).unflatten(2, grid)


POSITIONS: dict[str, Callable[[Tensor, Grid], Tensor]] = {
    "dino": dino,
    "ibot": dino,
    "dinov2": dino,
    "dinov2_registers": dinov2_registers,
    "msn": msn,
    "mae": mae,
    "deit": mae,
    "timm": timms,
}
