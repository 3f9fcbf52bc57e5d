"""Rotary positions are timm's, for every kind and at every size."""

import pytest
import timm
import torch
from timm.layers import RotaryEmbeddingMRope

from models.nets.rotary import UnknownRotationError, rotation

KINDS = [
    "vit_small_patch16_dinov3",
    "eva02_tiny_patch14_224",  # rescaled to the trained grid
    "vit_pe_core_tiny_patch16_384",  # columns before rows, counted from 1
    "vit_small_patch16_rope_224",
    "vit_small_patch16_rope_mixed_224",  # learned frequencies of every head and block
]


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_rotary_positions_are_timms(name: str) -> None:
    rope = timm.create_model(name, num_classes=0, depth=1, dynamic_img_size=True).rope
    for size in ((5, 9), (14, 14), (1, 3)):
        wanted = rope.get_embed(list(size))
        got = rotation(rope, *size)
        assert got.shape == wanted.shape
        assert torch.allclose(got, wanted, atol=1e-6)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(UnknownRotationError, match="RotaryEmbeddingMRope are not read here"):
        rotation(RotaryEmbeddingMRope(64), 2, 3)
