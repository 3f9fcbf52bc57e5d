"""Every other family of timm's networks says what timm's own forward pass says, at its own size and at another one.

Small networks of each class with random weights. What is compared with: timm's network told the other size in timm's
own way, and the keys that a hook finds.
"""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.nets.backbone import Backbone, BackboneError, CnnBackbone, VitBackbone
from models.nets.build import build
from models.nets.timm_backbone import TimmBackbone
from models.nets.weights import load_weights

# name: what makes it small. All that is left is as timm has it: windows, positions, norms, registers.
_FEW = {"depth": 2, "embed_dim": 64, "num_heads": 2, "img_size": 64}
_STAGES = {"embed_dim": 16, "stages": (1, 1, 2, 1)}
_WINDOWS = {"embed_dim": 16, "depths": (2, 1, 2, 1), "num_heads": (1, 1, 2, 2)}
ROTARY: dict[str, dict[str, Any]] = {
    "vit_small_patch16_dinov3": _FEW,
    "vit_small_patch16_dinov3_qkvb": _FEW,
    "eva02_tiny_patch14_224": _FEW | {"img_size": 56},
    "vit_pe_core_tiny_patch16_384": _FEW,
    "vit_small_patch16_rope_mixed_224": _FEW,
}
FLAT: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": _FEW,
    "beitv2_base_patch16_224": _FEW,
    "samvit_base_patch16": _FEW | {"global_attn_indexes": (1,), "window_size": 3},
    "vit_relpos_small_patch16_224": _FEW,
    "vit_srelpos_small_patch16_224": _FEW,
    "vit_tiny_r_s16_p8_224": {"depth": 2, "img_size": 64},
}
PYRAMIDS: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": _WINDOWS | {"img_size": 128},
    "swinv2_tiny_window8_256": _WINDOWS | {"img_size": 128},
    "hiera_tiny_224": _STAGES | {"img_size": 128},
    "hiera_small_abswin_256": _STAGES | {"img_size": 128},
    "hieradet_small": _STAGES | {"global_att_blocks": (3,)},
    "test_maxvit": {"img_size": 128},
}
NO_KEYS = {"test_maxvit"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm makes every network here small."""
    sizes, create = ROTARY | FLAT | PYRAMIDS, timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **given: create(name, **(sizes.get(name.split(".")[0], {}) | given))
    )


def made(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    backbone = build(name, "random", levels=3, **options).eval()
    with torch.no_grad():
        for key, parameter in backbone.named_parameters():
            if "norm" in key or "bias" in key or "pos" in key or "gamma" in key:
                parameter.normal_(std=0.5)  # as if they had learned: what is 0 or 1 hides mistakes
    backbone.load_state_dict(backbone.state_dict())
    return backbone


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def at(backbone: TimmBackbone, size: tuple[int, int]) -> Any:
    """timm's network with the same weights, told another size in timm's own way."""
    network = copy.deepcopy(backbone.body)
    if hasattr(network, "set_input_size") and not backbone.architecture.dynamic:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what timm does makes torch warn
            network.set_input_size(img_size=size)
    return network


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
@torch.no_grad()
def test_rotary_vits_are_timms(name: str, grid: tuple[int, int]) -> None:
    backbone = made(name)
    assert isinstance(backbone, VitBackbone)
    assert backbone.takes_any_size()
    free = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
    free.load_state_dict(backbone.vit.state_dict())
    x = images(grid[0] * backbone.stride, grid[1] * backbone.stride)
    wanted = free.forward_features(x)[:, free.num_prefix_tokens :]
    assert torch.allclose(backbone(x).flatten(2).transpose(1, 2), wanted, atol=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3_qkvb", "eva02_tiny_patch14_224"])
@torch.no_grad()
def test_keys_of_rotary_vits_are_those_before_the_rotation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = made(name, features="keys")
    last, seen = backbone.vit.blocks[-1].attn, []
    x = images(3 * backbone.stride, 5 * backbone.stride)
    last.k_norm = nn.Identity()
    last.k_norm.register_forward_hook(lambda module, given, answer: seen.append(answer))
    backbone.tokens(x)  # what timm's own attention sends through the norm of its keys, [B, heads, T, d]
    wanted = seen[0][:, :, backbone.vit.num_prefix_tokens :].transpose(1, 2).flatten(2)
    got = backbone(x).flatten(2).transpose(1, 2)
    assert got.shape == (2, 15, backbone.channels)
    assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("size", [None, (96, 160)])
@torch.no_grad()
def test_other_vits_are_timms(name: str, size: tuple[int, int] | None) -> None:
    backbone = made(name)
    assert isinstance(backbone, TimmBackbone)
    own = (FLAT | PYRAMIDS)[name].get("img_size", 128)
    size = size or (own, own)
    x = images(*size)
    network = at(backbone, size)
    features = network.forward_features(x)
    if features.dim() == 3:
        grid = (size[0] // backbone.stride, size[1] // backbone.stride)
        features = features[:, network.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid)
    assert torch.allclose(backbone(x), features, atol=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", PYRAMIDS)
@pytest.mark.parametrize("size", [None, (96, 160)])
@torch.no_grad()
def test_pyramids_are_timms_map_at_stride_16(name: str, size: tuple[int, int] | None) -> None:
    backbone = made(name)
    assert isinstance(backbone, TimmBackbone)
    own = (FLAT | PYRAMIDS)[name].get("img_size", 128)
    size = size or (own, own)
    x = images(*size)
    assert backbone.stride == 16
    if hasattr(backbone.body, "reroll"):  # timm tells a Hiera its size when it makes it
        network = timm.create_model(name, num_classes=0, img_size=size).eval()
        state = dict(backbone.body.state_dict())
        if network.pos_embed_win is None:
            table = state["pos_embed"].transpose(1, 2).unflatten(2, (own // 4, own // 4))
            grid = (size[0] // 4, size[1] // 4)
            resampled = table if size == (own, own) else F.interpolate(table, grid, mode="bicubic", antialias=True)
            state["pos_embed"] = resampled.flatten(2).transpose(1, 2)
        network.load_state_dict(state)
    else:
        network = at(backbone, size)
    maps = network.forward_intermediates(x, intermediates_only=True)
    wanted = next(found for found in reversed(maps) if found.shape[2:] == (size[0] // 16, size[1] // 16))
    assert torch.allclose(backbone(x), wanted, atol=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", sorted((FLAT | PYRAMIDS).keys() - NO_KEYS))
@torch.no_grad()
def test_keys_are_what_the_last_attention_compares(name: str) -> None:
    """Without the keys' part of its weights what is left of them is their bias: they are nothing else's product."""
    backbone = made(name, features="keys")
    block = backbone._block(backbone.body)
    x = images(96, 160)
    keys = backbone(x)
    assert keys.shape == (2, backbone.channels, 96 // backbone.stride, 160 // backbone.stride)
    product = block.attn.qkv
    count = product.out_features // 3
    block.attn.qkv.weight[count : 2 * count] = 0  # the weights of the keys, and of nothing else
    backbone.load_state_dict(backbone.state_dict())
    changed = backbone(x)
    still = product.bias[count : 2 * count] if product.bias is not None else torch.zeros(count)
    if "swinv2" in name:
        still = F.normalize(still.unflatten(0, (block.attn.num_heads, -1)), dim=-1).flatten()
    assert torch.allclose(changed, still[:, None, None].expand_as(changed), atol=1e-6)
    assert keys.std() > 1e-3


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_masks_of_shifted_windows_are_timms() -> None:
    for name in ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"):
        shifted = [block for block in made(name).body.modules() if any(getattr(block, "shift_size", ()))]
        assert shifted
        tall, wide = shifted[0].window_size
        for windows in ((1, 1), (2, 3)):
            x = torch.zeros(2, windows[0] * tall, windows[1] * wide, 4)
            assert torch.equal(shifted[0].get_attn_mask(x), type(shifted[0]).get_attn_mask(shifted[0], x)), name


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_windows_do_not_move_keys() -> None:
    """A patch of its own color: the keys differ most there, and not in another window."""
    for name in ("swin_tiny_patch4_window7_224", "hiera_tiny_224"):
        backbone = made(name, features="keys")
        x = images(96, 160) * 0.01
        marked = x.clone()
        marked[:, :, 48:64, 112:128] += 3
        moved = (backbone(marked) - backbone(x)).norm(dim=1)[0]
        assert divmod(int(moved.argmax()), moved.shape[1]) == (3, 7), name


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_convnexts_maps_are_counted_by_their_strides(tmp_path: Path) -> None:
    backbone = build("test_convnext", "random", levels=3).eval()
    assert isinstance(backbone, CnnBackbone)
    assert backbone.strides == [4, 8, 16]
    assert build("test_convnext", "random").stride == 32
    whole = timm.create_model("test_convnext", num_classes=0).eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")  # as timm names the whole network's tensors
    loaded = build("test_convnext", tmp_path / "w.safetensors", levels=3).eval()
    x = images(64, 96)
    wanted = whole.forward_intermediates(x, indices=[2], intermediates_only=True)[0]
    assert torch.allclose(loaded(x), wanted, atol=1e-5)


def dinov3s(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's tensors of a DINOv3 without biases of queries and values in its authors' names."""
    words = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    named = {}
    for key, tensor in state.items():
        for ours, theirs in words.items():
            key = key.replace(ours, theirs)
        named[key] = tensor
    width = state["blocks.0.attn.qkv.weight"].shape[0]
    for i in range(2):
        named[f"blocks.{i}.attn.qkv.bias"] = torch.zeros(width)
        named[f"blocks.{i}.attn.qkv.bias_mask"] = torch.ones(width)
    return named | {"mask_token": torch.zeros(1, 64), "rope_embed.periods": torch.ones(16)}


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_authors_files_of_other_families_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = made("vit_small_patch16_dinov3")
    save_file(dinov3s(source.vit.state_dict()), tmp_path / "dinov3.safetensors")
    loaded = build("vit_small_patch16_dinov3.lvd1689m", tmp_path / "dinov3.safetensors").eval()
    x = images(48, 80)
    assert torch.equal(loaded(x), source(x))
    assert capsys.readouterr().out == ""
    hiera = made("hiera_tiny_224")
    torch.save({"model_state": hiera.body.state_dict()}, tmp_path / "hiera.pth")
    assert torch.equal(
        build("hiera_tiny_224", tmp_path / "hiera.pth", levels=3).eval()(images(96, 64)), hiera(images(96, 64))
    )
    sam = made("samvit_base_patch16")
    theirs = {f"image_encoder.{k}".replace("mlp.fc", "mlp.lin"): v for k, v in sam.body.state_dict().items()}
    torch.save(theirs | {"mask_decoder.iou_token.weight": torch.zeros(1)}, tmp_path / "sam.pth")
    assert torch.equal(build("samvit_base_patch16", tmp_path / "sam.pth").eval()(x), sam(x))
    with pytest.raises(BackboneError, match="another network"):
        build("hiera_tiny_224", tmp_path / "sam.pth")


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_other_sizes_share_all_weights_but_positions() -> None:
    backbone = made("beit_base_patch16_224")
    copied = backbone._at((96, 160), torch.device("cpu"))
    assert copied is backbone._at((96, 160), torch.device("cpu"))
    assert copied.blocks[0].mlp.fc1.weight.data_ptr() == backbone.body.blocks[0].mlp.fc1.weight.data_ptr()
    assert copied.blocks[0].attn.relative_position_bias_table.shape[0] == 11 * 19 + 3
    assert backbone.body.blocks[0].attn.relative_position_bias_table.shape[0] == 7 * 7 + 3
    assert not any(name.startswith("_sized") for name in backbone.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("cait_xxs24_224", {}, r"cannot take an image of 48×80 pixels \(.*its own 224×224.*docs/backbones\.md"),
        ("convmixer_768_32", {}, r"has no maps at strides 4 to 32"),
        ("test_maxvit", {"features": "keys"}, r"no keys that can be read off: set backbone\.features to tokens"),
        ("resnet18", {"features": "keys"}, r"no attention, hence no keys: set backbone\.features to tokens"),
    ],
)
def test_what_cannot_be_used_is_refused_when_it_is_built(name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(BackboneError, match=why):
        build(name, "random", **options)


def test_all_promise_the_same() -> None:
    for name in ("test_vit", "test_resnet", "test_maxvit", "test_vit_relpos"):
        backbone: Backbone = build(name, "random", levels=3).eval()
        x = torch.zeros(1, 3, 2 * backbone.multiple, 3 * backbone.multiple)
        h, w = x.shape[2] // backbone.stride, x.shape[3] // backbone.stride
        assert backbone(x).shape == (1, backbone.channels, h, w)
        load_weights(backbone, backbone.state_dict(), "its own")
