"""Whose conventions weights follow is read off the file or the name, and each family's are those of its authors."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.nets import families
from models.nets.backbone import BackboneError, VitBackbone
from models.nets.build import build
from models.nets.families import FAMILIES
from models.nets.positions import resample_positions
from models.nets.weights import NORMALIZATION, read_weights
from models.preprocess import IMAGENET, Normalization
from tests.models.nets.authors import POSITIONS

VIT = "vit_tiny_patch16_224"  # timm's default weights are augreg's
HALF = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("size", [(20, 30), (7, 14), (14, 13), (28, 28), (9, 9), (3, 5), (1, 37), (20, 20)])
@pytest.mark.parametrize("family", FAMILIES)
def test_positions_are_resampled_as_the_authors_do(family: str, size: tuple[int, int]) -> None:
    table = torch.randn(1, 14 * 14, 8, generator=torch.Generator().manual_seed(0))
    wanted = POSITIONS[family](table.transpose(1, 2).unflatten(2, (14, 14)), size)
    assert wanted.shape[2:] == size
    got = resample_positions(table, (14, 14), *size, FAMILIES[family])
    assert float((got - wanted.flatten(2).transpose(1, 2)).abs().max()) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", [14, 37])
def test_positions_of_the_trained_size_are_untouched(family: str, side: int) -> None:
    table = torch.randn(1, side * side, 8)
    assert torch.equal(resample_positions(table, (side, side), side, side, FAMILIES[family]), table)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("vit_small_patch8_224.dino", "dino"),
        ("vit_small_patch8_224", "dino"),  # the first of timm's weights for it
        ("vit_base_patch14_dinov2.lvd142m", "dinov2"),
        ("vit_base_patch14_reg4_dinov2", "dinov2_registers"),
        ("vit_base_patch16_224.mae", "mae"),
        ("deit_tiny_distilled_patch16_224", "deit"),
        ("vit_base_patch16_clip_224.openai", "timm"),
        (VIT, "timm"),
        ("resnet50", "timm"),
    ],
)
def test_a_timm_name_tells_the_family(name: str, family: str) -> None:
    assert families.of_timm(name) == family


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["target_encoder.module.cls_token", "encoder.module.cls_token"], "msn"),
        (["student.module.backbone.masked_embed", "teacher.backbone.cls_token"], "ibot"),
        (["mask_token", "register_tokens", "blocks.0.ls1.gamma"], "dinov2_registers"),
        (["mask_token", "blocks.0.ls1.gamma"], "dinov2"),
        (["model.mask_token", "model.decoder_embed.weight"], "mae"),
        (["teacher.backbone.cls_token"], "dino"),
        (["cls_token", "reg_token", "blocks.0.ls1.gamma"], ""),  # timm's names: DINOv2 is not alone with them
        (["model.cls_token"], ""),
    ],
)
def test_tensors_tell_the_family_where_no_other_has_them(names: list[str], family: str) -> None:
    assert families.of_tensors(names) == family
    assert families.likely(names) == (family or ("dinov2_registers" if "reg_token" in names else "dino"))


def file_of(folder: Path, wrapped: str, **more: Tensor) -> Path:
    """A ViT-Ti's file with its tensors' names wrapped, and others beside them."""
    state = timm.create_model(VIT, num_classes=0).state_dict()
    save_file({wrapped.format(name): tensor for name, tensor in state.items()} | more, folder / "w.safetensors")
    return folder / "w.safetensors"


def test_pixels_are_those_the_weights_were_trained_on(tmp_path: Path) -> None:
    bare = file_of(tmp_path, "{}")
    assert build(VIT, "random").normalization == IMAGENET  # trained on nothing
    assert build(VIT, bare).normalization == build(f"{VIT}.augreg_in21k", bare).normalization == HALF
    assert build(VIT, bare, family="dino").normalization == IMAGENET
    own = build(VIT, bare, mean=(0.1, 0.2, 0.3)).normalization
    assert own == Normalization(mean=(0.1, 0.2, 0.3), std=HALF.std)
    with pytest.raises(BackboneError, match=r"backbone\.family 'swav': there are dino,"):
        build(VIT, bare, family="swav")


@pytest.mark.parametrize(
    ("wrapped", "more", "family"),
    [
        ("target_encoder.module.{}", "prototypes", "msn"),
        ("teacher.backbone.{}", "student.module.masked_embed", "ibot"),
        ("teacher.backbone.{}", "epoch", "dino"),
        ("{}", "mask_token", "dinov2"),
    ],
)
def test_the_authors_files_bring_their_conventions(wrapped: str, more: str, family: str, tmp_path: Path) -> None:
    backbone = build(VIT, file_of(tmp_path, wrapped, **{more: torch.zeros(1, 192)}))
    assert isinstance(backbone, VitBackbone)
    assert backbone.resampling == FAMILIES[family]
    assert backbone.normalization == IMAGENET


def test_a_file_pretrained_here_says_its_pixels(tmp_path: Path) -> None:
    """test_resnet's own at timm are one half; what older versions pretrained says nothing and took ImageNet's."""
    state, file = build("test_resnet", "random", levels=2, neck=8).state_dict(), tmp_path / "w.safetensors"
    save_file(state, file)
    assert build("test_resnet", file).normalization == IMAGENET
    said = Normalization(mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))
    save_file(state, file, {NORMALIZATION: said.model_dump_json()})
    assert read_weights(file).normalization == build("test_resnet", file).normalization == said
    save_file(state, file, {NORMALIZATION: '{"mean": [0, 0, 0], "std": [1, 1, 0]}'})
    with pytest.raises(BackboneError, match=r"its normalization: .*greater than or equal to 0.000001"):
        build("test_resnet", file)
