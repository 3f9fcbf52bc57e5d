"""The exported graph takes raw pixels and does with them, and with positions at any size, what the weights' authors do.

Wanted is timm's own network after timm's own normalization, its positions resampled by the authors' code.
"""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from models.nets.build import build
from models.nets.encoder import Encoder
from models.preprocess import InputSpec
from tests.models.nets.authors import POSITIONS, Grid
from tests.models.nets.few_blocks import few_blocks
from training.evaluation.exported import Exported
from training.export.onnx import Deployed, to_onnx

TINY = "vit_tiny_patch16_224"


@torch.no_grad()
def wanted(vit: nn.Module, family: str, pixels: Tensor, grid: Grid) -> Tensor:
    """The features [B, C, h, w] of uint8 pixels [B, H, W, 3]."""
    own = resolve_model_data_config(vit)
    mean, std = (own["mean"], own["std"]) if family == "timm" else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    x = normalize(pixels.permute(0, 3, 1, 2) / 255, mean, std)
    vit, cells = copy.deepcopy(vit), vit.patch_embed.num_patches
    prefix, patches = vit.pos_embed[:, :-cells], vit.pos_embed[:, -cells:]
    there = POSITIONS[family](patches.transpose(1, 2).unflatten(2, vit.patch_embed.grid_size), grid)
    vit.patch_embed.set_input_size(img_size=tuple(pixels.shape[1:3]))
    vit.pos_embed = nn.Parameter(torch.cat([prefix, there.flatten(2).transpose(1, 2)], 1))
    tokens: Tensor = vit.forward_features(x)[:, vit.num_prefix_tokens :]
    return tokens.transpose(1, 2).unflatten(2, grid)


@pytest.mark.parametrize(
    ("name", "wrapped", "family"),
    [
        (TINY, "{}", "timm"),  # augreg's pixels: one half
        ("vit_xsmall_patch16_clip_224.tinyclip_yfcc15m", "{}", "timm"),  # CLIP's
        ("vit_small_patch14_reg4_dinov2.lvd142m", "{}", "dinov2_registers"),
        (TINY, "target_encoder.module.{}", "msn"),
        (TINY, "teacher.backbone.{}", "dino"),
    ],
)
def test_the_graph_is_timms_network_after_timms_normalization(
    name: str, wrapped: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_blocks(monkeypatch, 1)
    torch.manual_seed(0)
    vit = timm.create_model(name, num_classes=0).eval()
    nn.init.normal_(vit.pos_embed, std=0.2)
    save_file({wrapped.format(key): value for key, value in vit.state_dict().items()}, tmp_path / "w.safetensors")
    backbone = build(name, tmp_path / "w.safetensors")
    network = Deployed(Encoder(backbone, nn.Identity()), torch.randn(3, backbone.channels))
    graph = to_onnx(network, InputSpec(size=(64, 64), multiple=backbone.stride))
    assert "Resize" not in {node.op_type for node in onnx.load_from_string(graph).graph.node}
    session, random = Exported(graph), np.random.default_rng(0)
    for grid in [(3, 5), (14, 14), (16, 15), (20, 20), (37, 37)]:
        height, width = (side * backbone.stride for side in grid)
        pixels = random.integers(0, 256, (1, height, width, 3), np.uint8)
        found = session(pixels, code=True).code
        assert found is not None
        expected = wanted(vit, family, torch.from_numpy(pixels), grid)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=1e-5)
