"""Heads: features to code.

Know nothing of where features come from or what the code is compared with.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def unchanged(x: Tensor) -> Tensor:
    """The default where a dropout may be handed in."""
    return x


class ProjectionHead(nn.Module):
    """Features [B, C, h, w] to code [B, D, h, w]: a linear path plus a two-layer one.

    nonlinear=False leaves the linear path alone; activation stands between the other's layers.

    Source: STEGO (arXiv:2203.08414) §4.2 and CAUSE-MLP (arXiv:2310.07379), same form; SmooSeg (arXiv:2310.17874) has
    SiLU in it.
    """

    def __init__(
        self, channels: int, dim: int, *, nonlinear: bool = True, activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, dim, 1)
        self.mlp = (
            nn.Sequential(nn.Conv2d(channels, channels, 1), activation(), nn.Conv2d(channels, dim, 1))
            if nonlinear
            else None
        )

    def forward(self, features: Tensor, dropout: Callable[[Tensor], Tensor] = unchanged) -> Tensor:
        """dropout: drawn anew for each of the two paths, as all three papers do."""
        code: Tensor = self.linear(dropout(features))
        if self.mlp is not None:
            code = code + self.mlp(dropout(features))
        return code


class FPNHead(nn.Module):
    """A pyramid of maps, fine to coarse, to one map [B, D, h, w] at the finest one's size.

    Each level passes a 1×1 convolution and is added to the upsampled sum of the coarser ones; nothing
    else: no smoothing, no norm, no activation.

    Source: PiCIE (arXiv:2103.17070), decoder.
    """

    def __init__(self, channels: Sequence[int], dim: int = 128) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in channels)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """pyramid: one [B, C_i, h_i, w_i] per level, fine to coarse."""
        out: Tensor = self.laterals[-1](pyramid[-1])
        for lateral, level in zip(reversed(self.laterals[:-1]), reversed(pyramid[:-1]), strict=True):
            out = F.interpolate(out, size=level.shape[-2:], mode="bilinear", align_corners=False) + lateral(level)
        return out
