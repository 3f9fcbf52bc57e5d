"""Rotary positions of timm's networks, for a grid whose size an exported graph leaves open.

Knows nothing of attention. timm's own modules turn height and width into Python numbers on the way, and a graph traced
through them takes one size only; what they compute is the same (tests/models/nets/test_rotary.py).
"""

from typing import Any

import torch
from timm.layers import RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed
from torch import Tensor, nn

from models.errors import TesseraError


class UnknownRotationError(TesseraError):
    """A kind of rotary positions that is not read here."""


def rotation(rope: nn.Module, height: int, width: int) -> Tensor:
    """Sines, then cosines, of the angles by which the patches of a height×width grid are turned.

    rope     timm's module: axial (EVA-02, Perception Encoder), DINOv3's, or mixed (RoPE-ViT)
    returns  float32 [height · width, 2 d], d channels a head; mixed: [depth, heads, height · width, 2 d]

    Raises UnknownRotationError.

    Source: Su et al. (arXiv:2104.09864); EVA-02 (arXiv:2303.11331) rescales to the trained grid, DINOv3
    (arXiv:2508.10104) to −1..1, RoPE-ViT (arXiv:2403.13298) learns the frequencies of every head.
    """
    module: Any = rope
    if isinstance(module, RotaryEmbeddingMixed):
        frequencies = module.freqs.float()
        y, x = _grid(*_steps(height, width, frequencies.device))
        first, second = (x, y) if module.grid_indexing == "xy" else (y, x)
        return _waves(first[:, None] * frequencies[0, ..., None, :] + second[:, None] * frequencies[1, ..., None, :])
    if isinstance(module, RotaryEmbeddingDinoV3) and module.normalize_coords == "separate":
        sides = _steps(height, width, module.periods.device)
        places = [2 * ((side + 0.5 + module.grid_offset) / len_) - 1 for side, len_ in _with_lengths(sides)]
        frequencies = 2 * torch.pi / module.periods
    elif isinstance(module, RotaryEmbeddingCat) and not module.in_pixels:
        places = [side + module.grid_offset for side in _steps(height, width, module.bands.device)]
        if module.ref_feat_shape is not None:
            lengths = [length for _, length in _with_lengths(places)]
            places = [p / n * trained for p, n, trained in zip(places, lengths, module.ref_feat_shape, strict=True)]
        frequencies = module.bands
    else:
        raise UnknownRotationError(f"rotary positions of the kind {type(module).__name__} are not read here")
    y, x = _grid(*places)
    pair = (x, y) if module.grid_indexing == "xy" else (y, x)
    angles = torch.stack(pair, -1)[..., None] * frequencies
    return _waves(angles.flatten(1), half=module.rotate_half)


def _steps(height: int, width: int, device: torch.device) -> list[Tensor]:
    """0, 1, … down and across; `height` and `width` may be values of a graph that is being traced."""
    return [torch.arange(side, device=device).float() for side in (height, width)]


def _with_lengths(sides: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(side, torch.scalar_tensor(side.shape[0], device=side.device)) for side in sides]


def _grid(down: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, row by row: two [h · w]."""
    size = (down.shape[0], across.shape[0])
    return down[:, None].expand(size).reshape(-1), across[None].expand(size).reshape(-1)


def _waves(angles: Tensor, *, half: bool = False) -> Tensor:
    """[..., d / 2] to [..., 2 d]: every angle twice, side by side or (`half`) in two halves."""
    twice = torch.cat([angles, angles], -1) if half else torch.stack([angles, angles], -1).flatten(-2)
    return torch.cat([twice.sin(), twice.cos()], -1)
