"""Backbones: normalized pixels to dense features, by timm name or from a local file.

Know nothing of methods, heads or clusters.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from pydantic import ValidationError
from safetensors import safe_open
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from models.errors import TesseraError
from models.nets import families
from models.nets.checkpoints.reader import ForeignCheckpointError, read_tensors
from models.nets.families import FAMILIES
from models.nets.heads import FPNHead
from models.nets.positions import resample_positions
from models.preprocess import IMAGENET, Normalization

NORMALIZATION = "normalization"  # of a .safetensors file's own facts: a Normalization as JSON
_WRAPPED = re.compile(r"^(module\.|backbone\.|encoder_q\.|base_encoder\.|model\.)+")  # around the network's own names

_LATERAL = r"neck\.laterals\.\d+\.weight"  # only what was pretrained here has a neck

VitFeatures = Literal["tokens", "keys"]


class BackboneError(TesseraError):
    """No such network, weights that cannot be had, or weights of another network."""


class Backbone(nn.Module):
    """Normalized pixels float32 [B, 3, H, W] to features [B, C, H/stride, W/stride].

    normalization  mean and std of the pixels its weights were trained on
    """

    channels: int
    stride: int
    normalization: Normalization = IMAGENET


class VitBackbone(Backbone):
    """A plain timm ViT's patch tokens. Class, distillation and register tokens take part and are dropped at the end.

    features  tokens: of the last block, after the final norm; keys: of the last block's attention, head by head
    family    whose way of resampling its position embeddings take (families.py)

    The keys of as many heads as the network has: upstream STEGO reads six, whatever the network.

    Source: STEGO (arXiv:2203.08414) §4.1.
    """

    def __init__(self, vit: Any, *, features: VitFeatures = "tokens", family: str = "dino") -> None:
        super().__init__()
        self.vit = vit
        self.features = features
        self.resampling = FAMILIES[family]
        self.stride = vit.patch_embed.patch_size[0]
        self.grid: tuple[int, int] = vit.patch_embed.grid_size
        self.channels: int = vit.embed_dim
        if features == "keys":
            self.channels = vit.blocks[-1].attn.num_heads * vit.blocks[-1].attn.head_dim

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, 3, H, W], H and W multiples of the stride → [B, C, h, w]."""
        found = self.tokens(x) if self.features == "tokens" else self.queries_keys(x)[1].transpose(1, 2).flatten(2)
        dense = found[:, self.vit.num_prefix_tokens :].transpose(1, 2)
        return dense.reshape(x.shape[0], self.channels, x.shape[2] // self.stride, x.shape[3] // self.stride)

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens after the final norm, prefix first: [B, T, C]."""
        tokens: Tensor = self.vit.norm(self.vit.blocks(self._embedded(x)))
        return tokens

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the last block's attention compares: two [B, heads, T, C / heads], prefix tokens first."""
        *before, last = self.vit.blocks
        tokens = self._embedded(x)
        for block in before:
            tokens = block(tokens)
        attention = last.attn
        parts = attention.qkv(last.norm1(tokens)).unflatten(2, (3, attention.num_heads, attention.head_dim))
        queries, keys, _ = parts.permute(2, 0, 3, 1, 4)
        return attention.q_norm(queries), attention.k_norm(keys)

    def _embedded(self, x: Tensor) -> Tensor:
        """Prefix and patch tokens with their positions, as the first block takes them: [B, T, C]."""
        vit = self.vit
        patches = vit.patch_embed.proj(x)
        height, width = patches.shape[-2:]
        tokens = vit.patch_embed.norm(patches.flatten(2).transpose(1, 2))
        own_tokens = (vit.cls_token, getattr(vit, "dist_token", None), vit.reg_token)
        prefix = [token.expand(x.shape[0], -1, -1) for token in own_tokens if token is not None]
        if vit.pos_embed is not None:
            outside = vit.pos_embed.shape[1] - self.grid[0] * self.grid[1]  # positions of prefix tokens
            own, spatial = vit.pos_embed[:, :outside], vit.pos_embed[:, outside:]
            tokens = tokens + resample_positions(spatial, self.grid, height, width, self.resampling)
            if outside:
                joined = torch.cat(prefix, 1)
                prefix = [joined + own] if outside == joined.shape[1] else [
                    joined[:, :outside] + own, joined[:, outside:]
                ]  # fmt: skip
        embedded: Tensor = vit.norm_pre(torch.cat([*prefix, tokens], 1))
        return embedded


class CnnBackbone(Backbone):
    """A timm CNN as a pyramid of maps, with a neck that merges them where it was trained with one.

    levels  how many of the maps at stride 4, 8, 16, 32 to use, from the finest
    neck    channels of the FPN that merges them at stride 4; 0 answers with the coarsest map alone
    """

    def __init__(self, name: str, *, levels: int = 4, neck: int = 0, pretrained: bool = False) -> None:
        super().__init__()
        self.body = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=tuple(range(1, levels + 1))
        )
        self.pyramid_channels: list[int] = self.body.feature_info.channels()
        strides: list[int] = self.body.feature_info.reduction()
        self.pyramid_stride = strides[0]
        self.neck = FPNHead(self.pyramid_channels, neck) if neck else None
        self.channels = neck or self.pyramid_channels[-1]
        self.stride = strides[0] if neck else strides[-1]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """x float32 [B, 3, H, W] → maps [B, C_i, h_i, w_i], fine to coarse."""
        maps: list[Tensor] = self.body(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, 3, H, W] → [B, C, h, w]."""
        maps = self.pyramid(x)
        return maps[-1] if self.neck is None else self.neck(maps)


def build(
    name: str,
    weights: str | Path = "timm",
    *,
    features: VitFeatures = "tokens",
    family: str = "",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    levels: int = 4,
    neck: int = 0,
) -> Backbone:
    """The backbone of a timm name.

    weights       `timm` (its hub), `random`, or a .safetensors / .pth file in timm's or the authors' key names
    features      of a ViT, see VitBackbone
    family        whose conventions the weights follow (families.py); empty: the file's, else the timm name's
    mean, std     of the pixels, as fractions of 255; empty: those of the weights
    levels, neck  of a CNN, see CnnBackbone; a file written by `training/pretrain.py` brings its own

    Raises BackboneError.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = timm.list_models(f"*{base.split('_')[0]}*")[:5]
        raise BackboneError(f"backbone {name!r} is not a timm name" + (f"; near it: {', '.join(near)}" if near else ""))
    if family and family not in FAMILIES:
        raise BackboneError(f"backbone.family {family!r}: there are {', '.join(FAMILIES)}")
    file = None
    if str(weights) not in ("timm", "random"):
        file = read_weights(Path(weights))
        laterals = [v for k, v in file.tensors.items() if re.fullmatch(_LATERAL, k)]
        levels, neck = (len(laterals), laterals[0].shape[0]) if laterals else (levels, neck)
    pretrained = str(weights) == "timm"
    try:
        family = family or (file.family if file else "") or families.of_timm(name)
        backbone = _create(name, features, family, levels, neck, pretrained)
        own = IMAGENET if str(weights) == "random" else _normalization(name, family, file)
    except BackboneError:
        raise
    except Exception as error:
        if not pretrained:
            raise BackboneError(f"backbone {name!r}: {error}") from error
        raise BackboneError(
            f"the weights of {name!r} could not be fetched ({type(error).__name__}): connect this machine to"
            " timm's hub, give a local file (--set backbone.weights=FILE), or train a small backbone on your own"
            " images (python training/pretrain.py --data DIR --out backbone.safetensors)"
        ) from error
    backbone.normalization = Normalization.model_validate({"mean": mean or own.mean, "std": std or own.std})
    if file is not None:
        load_weights(backbone, file.tensors, Path(weights))
    return backbone


def _normalization(name: str, family: str, file: "Weights | None") -> Normalization:
    """Of the pixels that weights from timm's hub or a file were trained on."""
    if file is not None and file.normalization is not None:
        return file.normalization
    trained_here = file is not None and any(re.fullmatch(_LATERAL, key) for key in file.tensors)
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if family != "timm" or trained_here or known is None:
        return IMAGENET
    return Normalization(mean=known.mean, std=known.std)


def _create(name: str, features: VitFeatures, family: str, levels: int, neck: int, pretrained: bool) -> Backbone:
    if not _is_vit(name):
        if features == "keys":
            raise BackboneError(f"backbone {name!r} has no attention, hence no keys: set backbone.features to tokens")
        return CnnBackbone(name, levels=levels, neck=neck, pretrained=pretrained)
    vit = timm.create_model(name, pretrained=pretrained, num_classes=0)
    if getattr(vit, "rope", None) is not None:
        raise BackboneError(f"backbone {name!r} uses rotary positions, which are not read here; take a plain ViT")
    if not isinstance(vit, VisionTransformer) or type(vit.patch_embed) is not PatchEmbed:
        raise BackboneError(f"backbone {name!r} is no plain ViT: its positions or patches are made in another way")
    return VitBackbone(vit, features=features, family=family)


def _is_vit(name: str) -> bool:
    return name.startswith(("vit_", "deit_", "deit3_", "flexivit_", "test_vit")) and "vit_relpos" not in name


@dataclass(frozen=True)
class Weights:
    """A network's tensors under its own names, and what their file tells besides.

    family         whose conventions they follow; empty: it does not tell
    normalization  of the pixels they were trained on; None: it does not tell
    """

    tensors: dict[str, Tensor]
    family: str = ""
    normalization: Normalization | None = None


def read_weights(path: Path) -> Weights:
    """The network in a .safetensors or .pth file. Raises BackboneError.

    Nothing in the file is executed. Of a checkpoint that holds several networks the one to use is taken: the
    teacher (DINO, iBOT), the target (MSN), the query encoder (MoCo).
    """
    normalization = None
    try:
        state = read_tensors(path)
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                facts = file.metadata() or {}
            if NORMALIZATION in facts:
                normalization = Normalization.model_validate_json(facts[NORMALIZATION])
    except ForeignCheckpointError as error:
        raise BackboneError(f"weights {error}") from None
    except ValidationError as error:
        raise BackboneError(f"weights {path}: its {NORMALIZATION}: {error.errors()[0]['msg']}") from None
    family = families.of_tensors(state)
    for part in ("teacher.", "target_encoder.", "state_dict.", "model."):
        state = {key.removeprefix(part): v for key, v in state.items() if key.startswith(part)} or state
    return Weights({_WRAPPED.sub("", key): v for key, v in state.items()}, family, normalization)


def vit_from(
    state: dict[str, Tensor], heads: int | None = None, *, source: str = "", family: str = "dino"
) -> VitBackbone:
    """The plain ViT that tensors in timm's or the authors' names make, whatever timm calls it.

    heads   of its attention, which no tensor tells; one per 64 channels when absent, as all published ones have
    source  what messages call the tensors
    family  whose conventions they follow (families.py)

    Raises BackboneError.
    """
    try:
        channels, _, patch, _ = state["patch_embed.proj.weight"].shape
        hidden, positions = len(state["blocks.0.mlp.fc1.weight"]), state["pos_embed"].shape[1]
    except (KeyError, ValueError):
        raise BackboneError(f"weights {source}: no plain ViT: it has patch_embed, pos_embed and blocks") from None
    heads = heads or max(1, channels // 64)
    if channels % heads:
        raise BackboneError(f"weights {source}: {channels} channels cannot be shared by {heads} heads")
    side = math.isqrt(positions)
    vit = VisionTransformer(
        img_size=side * patch,
        patch_size=patch,
        embed_dim=channels,
        depth=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        num_heads=heads,
        mlp_ratio=hidden / channels,
        init_values=1.0 if "blocks.0.ls1.gamma" in state else None,
        reg_tokens=next((state[key].shape[1] for key in ("register_tokens", "reg_token") if key in state), 0),
        no_embed_class=side**2 == positions or "register_tokens" in state,  # prefix tokens have no position
        num_classes=0,
    )
    backbone = VitBackbone(vit, family=family)
    load_weights(backbone, state, source, "the file is not whole")
    return backbone


def load_weights(
    backbone: Backbone,
    state: dict[str, Tensor],
    source: Path | str,
    why: str = "it was trained for another network; set backbone.name to that one",
) -> None:
    """Tensors into the network; heads the file has besides are left out, anything missing is an error.

    source  what messages call the tensors

    Raises BackboneError.
    """
    if isinstance(backbone, VitBackbone):
        state = _in_timms_names(state, backbone)
    own = backbone.state_dict()
    inner: Sequence[str] = ("", "vit.", "body.")
    prefix = max(inner, key=lambda p: sum(p + key in own for key in state))
    fitting = {prefix + k: v for k, v in state.items() if prefix + k in own and own[prefix + k].shape == v.shape}
    missing = [k for k in own if k not in fitting and not k.endswith("num_batches_tracked")]
    if missing:
        raise BackboneError(
            f"weights {source}: {len(missing)} of {len(own)} tensors of this backbone are not in it"
            f" ({', '.join(missing[:3])} …): {why}"
        )
    backbone.load_state_dict(fitting, strict=False)


def _in_timms_names(state: dict[str, Tensor], backbone: VitBackbone) -> dict[str, Tensor]:
    """As timm reads a ViT of its authors: DINOv2's register and class tokens, positions of another grid.

    Only for the same patches: timm would resample those as well, and a network of patches of 8 is not one of 16.
    """
    patches, own = state.get("patch_embed.proj.weight"), backbone.vit.patch_embed.proj.weight
    if patches is None or patches.shape != own.shape:
        return state
    known: dict[str, Tensor] = checkpoint_filter_fn(dict(state), backbone.vit)
    return known
