"""The families of pretrained networks that recipes name, with random weights and two blocks, keep the rules.

What a ViT gives is held against timm's own forward pass, at the size it was trained at and at another one.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.nets.backbone import BackboneError, CnnBackbone, VitBackbone
from models.nets.build import build
from models.nets.families import of_timm
from tests.models.nets.authors import POSITIONS
from tests.models.nets.few_blocks import few_blocks

SMALL = [
    "vit_tiny_patch16_224",
    "vit_small_patch8_224.dino",
    "vit_small_patch16_224.dino",  # MSN's, iBOT's and MoCo v3's ViT-S as well: their weights come as files
    "vit_small_patch14_dinov2.lvd142m",
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "deit_tiny_distilled_patch16_224",
]
BASE = [
    "vit_base_patch8_224.dino",
    "vit_base_patch16_224.dino",
    "vit_base_patch16_224.mae",
    "vit_base_patch14_dinov2.lvd142m",
    "vit_base_patch14_reg4_dinov2.lvd142m",
    "vit_base_patch16_clip_224.openai",
]
VITS = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in BASE)]
OTHER_GRID = (3, 5)


@pytest.fixture(autouse=True)
def _two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    few_blocks(monkeypatch, 2)


def shallow(name: str, **options: str) -> VitBackbone:
    """The backbone of two blocks, with positions and norms that are not the initial ones."""
    torch.manual_seed(0)
    backbone = build(name, "random", **options).eval()  # type: ignore[arg-type]
    assert isinstance(backbone, VitBackbone)
    assert len(backbone.vit.blocks) == 2
    with torch.no_grad():
        for parameter in (backbone.vit.pos_embed, backbone.vit.norm.weight, backbone.vit.norm.bias):
            parameter.normal_()
    return backbone


def pixels(backbone: VitBackbone, grid: tuple[int, int]) -> Tensor:
    sides = (side * backbone.stride for side in grid)
    return torch.randn(1, 3, *sides, generator=torch.Generator().manual_seed(1))


def dense(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens [B, h·w, C] as a map."""
    return tokens.transpose(1, 2).unflatten(2, grid)


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_vit_tokens_are_timms(name: str) -> None:
    backbone = shallow(name)
    patch = int(name.split("patch")[1].split("_")[0])
    assert (backbone.stride, backbone.channels) == (patch, backbone.vit.embed_dim)
    x = pixels(backbone, backbone.grid)
    tokens = backbone.vit.forward_features(x)
    assert torch.allclose(backbone.tokens(x), tokens, atol=1e-4)
    patches = tokens[:, backbone.vit.num_prefix_tokens :]
    assert patches.shape[1] == backbone.grid[0] * backbone.grid[1]
    assert torch.allclose(backbone(x), dense(patches, backbone.grid), atol=1e-4)


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_vit_positions_at_another_size_are_its_authors(name: str) -> None:
    backbone = shallow(name)
    x = pixels(backbone, OTHER_GRID)
    got = backbone(x)
    vit, (rows, columns) = backbone.vit, backbone.grid
    kept = vit.pos_embed[:, : vit.pos_embed.shape[1] - rows * columns]
    positions = dense(vit.pos_embed[:, kept.shape[1] :], backbone.grid)
    resampled = POSITIONS[of_timm(name)](positions, OTHER_GRID)
    assert resampled.shape[2:] == OTHER_GRID
    vit.patch_embed.set_input_size(img_size=x.shape[2:])
    vit.pos_embed = nn.Parameter(torch.cat([kept, resampled.flatten(2).transpose(1, 2)], 1))
    wanted = vit.forward_features(x)[:, vit.num_prefix_tokens :]
    assert torch.allclose(got, dense(wanted, OTHER_GRID), atol=1e-3)


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_vit_keys_are_those_of_the_last_block(name: str) -> None:
    backbone = shallow(name, features="keys")
    heads, channels = backbone.vit.embed_dim // 64, backbone.vit.embed_dim  # 64 channels a head in all of them
    x = pixels(backbone, OTHER_GRID)
    seen: list[Tensor] = []
    backbone.vit.blocks[-1].attn.qkv.register_forward_hook(lambda *call: seen.append(call[2]))
    got = backbone(x)
    assert backbone.queries_keys(x)[1].shape[1] == heads
    keys = seen[0][:, backbone.vit.num_prefix_tokens :, channels : 2 * channels]  # head after head
    assert torch.equal(got, dense(keys, OTHER_GRID))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50.fb_swsl_ig1b_ft_in1k"])
@torch.no_grad()
def test_resnets_are_pyramids(name: str) -> None:
    backbone = build(name, "random").eval()
    assert isinstance(backbone, CnnBackbone)
    widths = [64, 128, 256, 512] if name == "resnet18" else [256, 512, 1024, 2048]
    maps = backbone.pyramid(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(w, 16 >> i, 24 >> i) for i, w in enumerate(widths)]


def test_mocos_file_fits_a_resnet(tmp_path: Path) -> None:
    """The query encoder of a training checkpoint; its head and the key encoder stay behind."""
    source = build("resnet18", "random")
    assert isinstance(source, CnnBackbone)
    body = source.body.state_dict()
    keys = {f"module.encoder_k.{k}": torch.zeros_like(v) for k, v in body.items()}
    state = (
        {f"module.encoder_q.{k}": v for k, v in body.items()} | keys | {"module.encoder_q.fc.0.weight": torch.ones(2)}
    )
    torch.save({"epoch": 200, "state_dict": state}, tmp_path / "moco.pth.tar")
    loaded = build("resnet18", tmp_path / "moco.pth.tar")
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_dinos_and_msns_key_names_fit_a_vit(tmp_path: Path) -> None:
    source = build("vit_tiny_patch16_224", "random")
    assert isinstance(source, VitBackbone)
    for outer, prefix in (("teacher", "backbone."), ("state_dict", "module."), ("model", "")):
        state = {f"{prefix}{k}": v for k, v in source.vit.state_dict().items()}
        torch.save({outer: state, "epoch": 3}, tmp_path / f"{outer}.pth")
        loaded = build("vit_tiny_patch16_224", tmp_path / f"{outer}.pth")
        for name, tensor in source.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name]), name
    save_file(source.vit.state_dict(), tmp_path / "timm.safetensors")
    assert build("vit_tiny_patch16_224", tmp_path / "timm.safetensors").channels == 192


def test_a_cnn_has_no_keys() -> None:
    with pytest.raises(BackboneError, match=r"set backbone\.features to tokens"):
        build("resnet10t", "random", features="keys")
