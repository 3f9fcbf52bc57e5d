"""Backbones: their shapes hold, weights come from where they are said to, and nothing is executed."""

import pickle
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from models.nets.backbone import BackboneError, CnnBackbone, VitBackbone, _pyramid_takes_any_size
from models.nets.build import build
from models.nets.encoder import Encoder, positions
from models.nets.heads import FPNHead, ProjectionHead
from models.nets.weights import read_weights, vit_from
from tests.models.nets.few_blocks import few_blocks

VIT = "vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def _two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    few_blocks(monkeypatch, 2)


def test_tokens_are_those_after_the_final_norm() -> None:
    backbone = build(VIT, "random").eval()
    assert isinstance(backbone, VitBackbone)
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = backbone.vit.forward_features(x)[:, 1:]
        got = backbone(x)
    assert got.shape == (2, 192, 14, 14)
    assert torch.allclose(got.flatten(2).transpose(1, 2), expected, atol=1e-5)


def test_register_tokens_are_dropped() -> None:
    backbone = build("vit_small_patch14_reg4_dinov2.lvd142m", "random").eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 42, 56)).shape == (1, 384, 3, 4)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_are_loaded(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = build(VIT, "random", family="dino").eval()
    assert isinstance(source, VitBackbone)
    state = source.vit.state_dict()
    file = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"teacher": {f"module.backbone.{k}": v for k, v in state.items()} | {"epoch": 3}}, file)
    else:
        save_file(state, file)
    loaded = build(VIT, file, family="dino").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded(x), source(x))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, file)
    with pytest.raises(BackboneError, match="another network"):
        build(VIT, file)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_nothing_in_a_pickle_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "w.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Bomb()}, file)
    assert read_weights(file).tensors == {"a": torch.ones(1)}
    file.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BackboneError, match="not a readable"):
        read_weights(file)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrapped",
    ["teacher.backbone.{}", "teacher.module.{}", "target_encoder.module.{}", "state_dict.module.encoder_q.{}",
     "state_dict.module.base_encoder.{}", "model.{}"],
)  # fmt: skip
def test_the_authors_own_files_are_read(wrapped: str, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    top, _, rest = wrapped.partition(".")
    others = {"student": {"a": torch.zeros(1)}, "args": Bomb(), "epoch": 3}
    torch.save({top: {rest.format("a"): torch.ones(1)}, **others}, file)
    assert read_weights(file).tensors["a"] == 1


def small_vit(**options: object) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 0}
    vit = VisionTransformer(**size | options)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.2)
    return vit.eval()


@pytest.mark.parametrize("options", [{}, {"init_values": 1.0}, {"reg_tokens": 4, "no_embed_class": True}])
def test_a_vit_is_built_from_the_shapes_of_its_tensors(options: dict[str, object]) -> None:
    vit = small_vit(**options)
    backbone = vit_from(vit.state_dict()).eval()
    x = torch.randn(1, 3, 40, 24)
    with torch.no_grad():
        assert torch.equal(backbone(x), VitBackbone(vit)(x))
        assert not torch.allclose(vit_from(vit.state_dict(), heads=4).eval()(x), backbone(x), atol=1e-3)


def test_dinov2_with_registers_in_its_authors_names() -> None:
    vit = small_vit(reg_tokens=4, no_embed_class=True, init_values=1.0)
    theirs = dict(vit.state_dict())
    own = torch.randn(1, 1, 128)  # the class token's position: timm has added it to the token
    theirs["cls_token"] = theirs["cls_token"] - own
    theirs["pos_embed"] = torch.cat([own, theirs["pos_embed"]], 1)
    theirs["register_tokens"] = theirs.pop("reg_token")
    theirs["mask_token"] = torch.zeros(1, 128)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(vit_from(theirs).eval()(x), VitBackbone(vit)(x), atol=1e-5)


def test_positions_of_another_grid_are_resampled_other_patches_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    state = timm.create_model(VIT, num_classes=0, img_size=128).state_dict()
    save_file(state, file)
    assert build(VIT, file).state_dict()["vit.pos_embed"].shape == (1, 197, 192)
    save_file(state | {"patch_embed.proj.weight": torch.zeros(192, 3, 8, 8)}, file)
    with pytest.raises(BackboneError, match="another network"):
        build(VIT, file)
    with pytest.raises(BackboneError, match="not whole"):
        vit_from({key: value for key, value in state.items() if not key.startswith("norm.")}, source="x.pth")
    with pytest.raises(BackboneError, match="no plain ViT"):
        vit_from({"conv1.weight": torch.zeros(1)})
    with pytest.raises(BackboneError, match="5 heads"):
        vit_from(state, heads=5)


def test_wrong_names_and_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="not a timm name"):
        build("vit_enormous", "random")
    with pytest.raises(BackboneError, match="no such file"):
        build(VIT, tmp_path / "none.pth")
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    with pytest.raises(BackboneError, match="not a readable"):
        build(VIT, tmp_path / "w.safetensors")


def test_a_cnn_is_a_pyramid_with_or_without_neck(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = build("resnet10t", "random", levels=3)
    assert isinstance(plain, CnnBackbone)
    assert [tuple(m.shape[1:]) for m in plain.pyramid(torch.zeros(1, 3, 64, 96))] == [
        (64, 16, 24), (128, 8, 12), (256, 4, 6),
    ]  # fmt: skip
    assert (plain.channels, plain.stride) == (256, 16)
    necked = build("resnet10t", "random", levels=3, neck=32).eval()
    assert (necked.channels, necked.stride) == (32, 4)
    save_file(necked.state_dict(), tmp_path / "w.safetensors")
    again = build("resnet10t", tmp_path / "w.safetensors").eval()  # levels and neck come with the file
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), necked(x))


def test_projection_head_is_a_sum_of_two_paths() -> None:
    head = ProjectionHead(6, 4)
    x = torch.randn(2, 6, 3, 5)
    assert head.mlp is not None
    assert torch.allclose(head(x), head.linear(x) + head.mlp(x))
    straight = ProjectionHead(6, 4, nonlinear=False)
    assert torch.equal(straight(x), straight.linear(x))
    drawn: list[torch.Tensor] = []
    head(x, lambda t: drawn.append(t) or F.dropout2d(t, 0.5))
    assert len(drawn) == 2


def test_fpn_head_adds_upsampled_laterals() -> None:
    head = FPNHead([4, 8], 3)
    fine, coarse = torch.randn(1, 4, 8, 10), torch.randn(1, 8, 4, 5)
    up = F.interpolate(head.laterals[1](coarse), size=(8, 10), mode="bilinear", align_corners=False)
    assert torch.allclose(head([fine, coarse]), up + head.laterals[0](fine))


def test_encoder_normalizes_places_and_flips() -> None:
    torch.manual_seed(0)
    backbone = build("resnet10t", "random", levels=2, neck=8).eval()
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        plain = Encoder(backbone, nn.Identity())
        code = plain(pixels)
        assert code.shape == (2, 8, 8, 12)
        assert plain.stride == 4
        normalized = Encoder(backbone, nn.Identity(), normalize=True)(pixels)
        assert torch.allclose(normalized, F.normalize(code, dim=1))
        placed = Encoder(backbone, nn.Identity(), position=0.3)(pixels)
        assert torch.allclose(placed[:, :8], F.normalize(code, dim=1))
        assert torch.allclose(placed[:, 8:], 0.3 * positions(code))
        assert placed[:, 8:].abs().max() < 0.3
        flipped = Encoder(backbone, nn.Identity(), flip_average=True)
        assert torch.allclose(flipped(pixels.flip(2)).flip(-1), flipped(pixels), atol=1e-5)
        assert torch.allclose(flipped(pixels), (code + plain(pixels.flip(2)).flip(-1)) / 2, atol=1e-5)


def test_asking_what_sizes_a_network_takes_draws_no_random_numbers() -> None:
    # A resumed training asks at another moment than the first one did, and both have to draw the same afterwards.
    network = CnnBackbone("test_resnet", levels=3)
    _pyramid_takes_any_size.cache_clear()
    before = torch.get_rng_state()
    assert network.takes_any_size()
    assert torch.equal(torch.get_rng_state(), before)
