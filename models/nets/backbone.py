"""Backbones: normalized pixels to dense features. Here what all of them promise, plain and rotary ViTs, and CNNs.

Know nothing of methods, heads or clusters, nor of where weights lie (weights.py); build.py makes one of a timm name.
"""

import contextlib
import functools
import io
import re
import sys
import warnings
from typing import Any, Literal

import timm
import torch
from timm.models import model_entrypoint
from timm.models.eva import EvaBlockPostNorm
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from models.errors import TesseraError
from models.nets import attention
from models.nets.families import FAMILIES
from models.nets.heads import FPNHead
from models.nets.positions import Resampling, resample_positions
from models.nets.rotary import rotation
from models.preprocess import IMAGENET, Normalization

VitFeatures = Literal["tokens", "keys"]


class BackboneError(TesseraError):
    """No such network, weights that cannot be had, or weights of another network."""


class Backbone(nn.Module):
    """Normalized pixels float32 [B, 3, H, W] to features [B, C, H/stride, W/stride].

    normalization  mean and std of the pixels its weights were trained on
    features       tokens, or keys of the last attention
    resampling     how its position embeddings get to another size; None: as timm does, or it has none
    """

    channels: int
    stride: int
    normalization: Normalization = IMAGENET
    features: VitFeatures = "tokens"
    resampling: Resampling | None = None

    @property
    def multiple(self) -> int:
        """Pixels of which height and width are whole multiples."""
        return self.stride

    def takes_any_size(self) -> bool:
        """Whether one exported graph takes images of every size; one of another network takes one size."""
        return True

    def in_own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors in timm's or the authors' names in those of this network."""
        return state


class VitBackbone(Backbone):
    """A timm ViT's patch tokens. Class, distillation and register tokens take part and are dropped at the end.

    vit       with learned positions (VisionTransformer), rotary ones, or both (Eva: DINOv3, EVA-02)
    features  tokens: of the last block, after the final norm; keys: of the last block's attention, head by head
    family    whose way of resampling its position embeddings take (families.py)

    The keys of as many heads as the network has: upstream STEGO reads six, whatever the network. They are taken before
    rotary positions turn them (attention.py).

    Source: STEGO (arXiv:2203.08414) §4.1.
    """

    def __init__(self, vit: Any, *, features: VitFeatures = "tokens", family: str = "dino") -> None:
        super().__init__()
        self.vit = vit
        self.features = features
        self.resampling: Resampling = FAMILIES[family]
        self.stride = vit.patch_embed.patch_size[0]
        self.grid: tuple[int, int] = vit.patch_embed.grid_size
        self.channels: int = vit.embed_dim
        if features == "keys":
            last = getattr(vit.blocks[-1], "attn", None)
            if not attention.has_keys(last):
                raise BackboneError("its blocks have no keys that can be read off: set backbone.features to tokens")
            self.channels = attention.key_channels(last)

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, 3, H, W], H and W multiples of the stride → [B, C, h, w]."""
        found = self.tokens(x) if self.features == "tokens" else self.queries_keys(x)[1].transpose(1, 2).flatten(2)
        dense = found[:, self.vit.num_prefix_tokens :].transpose(1, 2)
        return dense.reshape(x.shape[0], self.channels, x.shape[2] // self.stride, x.shape[3] // self.stride)

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens after the final norm, prefix first: [B, T, C]."""
        tokens: Tensor = self.vit.norm(self._through(len(self.vit.blocks), *self._embedded(x)))
        return tokens

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the last block's attention compares: two [B, heads, T, C / heads], prefix tokens first."""
        last = self.vit.blocks[-1]
        tokens = self._through(len(self.vit.blocks) - 1, *self._embedded(x))
        normed_after = isinstance(last, (EvaBlockPostNorm, ResPostBlock))
        queries, keys = attention.queries_keys(last.attn, tokens if normed_after else last.norm1(tokens))
        return queries.transpose(1, 2), keys.transpose(1, 2)

    def in_own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """As timm reads a ViT of its authors: register and class tokens, positions of another grid."""
        return in_timms_names(state, self.vit)

    def _through(self, count: int, tokens: Tensor, turn: Tensor | None) -> Tensor:
        """Tokens [B, T, C] after the first `count` blocks, whose attentions turn queries and keys by `turn`."""
        for i, block in enumerate(self.vit.blocks[:count]):
            if turn is None:
                tokens = block(tokens)
            else:
                tokens = block(tokens, rope=turn[i] if turn.dim() == 4 else turn)
        return tokens

    def _embedded(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Prefix and patch tokens with their positions, as the first block takes them, [B, T, C]; the rotation."""
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
        rope = getattr(vit, "rope", None)
        return embedded, None if rope is None else rotation(rope, height, width)


class CnnBackbone(Backbone):
    """A timm CNN as a pyramid of maps, with a neck that merges them where it was trained with one.

    levels  how many of the maps at stride 4, 8, 16, 32 to use, from the finest
    neck    channels of the FPN that merges them at stride 4; 0 answers with the coarsest map alone

    Raises BackboneError: it has no such maps.
    """

    def __init__(self, name: str, *, levels: int = 4, neck: int = 0, pretrained: bool = False) -> None:
        super().__init__()
        self.name = name
        self.body = _pyramid(name, levels, pretrained)
        self.pyramid_channels: list[int] = self.body.feature_info.channels()
        self.strides: list[int] = self.body.feature_info.reduction()
        self.pyramid_stride: int = self.strides[0]
        self.neck: FPNHead | None = None
        self.channels, self.stride = self.pyramid_channels[-1], self.strides[-1]
        if neck:
            self.add_neck(neck)

    def add_neck(self, channels: int) -> None:
        """A neck of so many channels, with random weights, in the place of whatever it had: it answers at stride 4."""
        self.neck = FPNHead(self.pyramid_channels, channels)
        self.channels, self.stride = channels, self.pyramid_stride

    def takes_any_size(self) -> bool:
        """Whether its maps follow the size in a traced graph too: those of convolutions do."""
        return _pyramid_takes_any_size(self.name, len(self.strides))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """x float32 [B, 3, H, W] → maps [B, C_i, h_i, w_i], fine to coarse."""
        maps: list[Tensor] = self.body(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, 3, H, W] → [B, C, h, w]."""
        maps = self.pyramid(x)
        return maps[-1] if self.neck is None else self.neck(maps)

    def in_own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """As timm reads its authors' file, and then as it names the parts that make a pyramid."""
        own = {key.removeprefix("body.").removeprefix("model.") for key in self.state_dict()}
        if own.isdisjoint(state) and _reader(self.name) is not None:
            with torch.random.fork_rng(devices=[]):
                state = in_timms_names(state, timm.create_model(self.name, num_classes=0))
        flat = {key: re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", key) for key in state}
        return {flat[key] if flat[key] in own else key: tensor for key, tensor in state.items()}


def in_timms_names(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """An authors' file as timm reads it for this network of its own: other names, positions of another grid.

    Only for the same patches: timm would resample those as well, and a network of patches of 8 is not one of 16.
    """
    reader = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    key = "patch_embed.proj.weight"
    patches, own = state.get(key), network.state_dict().get(key)
    if reader is None or (patches is not None and own is not None and patches.shape[2:] != own.shape[2:]):
        return state
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it leaves out
        try:
            known: dict[str, Tensor] = reader(dict(state), network)
        except (AttributeError, KeyError, RuntimeError, AssertionError):  # not of this network: what is missing is told
            return state
    return known


def traced_at_any_size(backbone: nn.Module, multiple: int) -> bool:
    """Whether a graph traced at one size, as an exported one is, says at another size what the network says there."""
    first = next(backbone.parameters())
    sizes = [(1, 3, 2 * multiple, 3 * multiple), (2, 3, 5 * multiple, 4 * multiple)]
    traced_on, other = (torch.rand(size, generator=torch.Generator().manual_seed(0)).to(first) for size in sizes)
    training = backbone.training
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of what is tried here
            graph = torch.jit.trace(backbone.eval(), traced_on, check_trace=False)  # type: ignore[no-untyped-call]
            wanted, got = backbone(other), graph(other)
        return wanted.shape == got.shape and bool(torch.allclose(wanted, got, atol=1e-4, rtol=1e-3))
    except RuntimeError:  # a size that tracing wrote down does not fit the other one
        return False
    finally:
        backbone.train(training)


def _pyramid(name: str, levels: int, pretrained: bool) -> Any:
    """timm's network that answers with its maps at strides 4, 8, … alone; families count their stages differently."""
    for first in (1, 0, 2):
        stages, wanted = tuple(range(first, first + levels)), [4 << level for level in range(levels)]
        try:
            body = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=stages)
        except (IndexError, AssertionError, RuntimeError, AttributeError):  # it has fewer, or no maps at all
            continue
        if body.feature_info.reduction() == wanted:
            return body
    raise BackboneError(f"it has no maps at strides 4 to {2 << levels}: take another network")


@functools.cache
def _pyramid_takes_any_size(name: str, levels: int) -> bool:
    """Of every network of that name, whatever its weights: asked once a process, it draws nothing that would show."""
    with torch.random.fork_rng(devices=[]):
        return traced_at_any_size(CnnBackbone(name, levels=levels), 2 << levels)


def _reader(name: str) -> Any:
    module = sys.modules[model_entrypoint(name.split(".")[0]).__module__]
    return getattr(module, "checkpoint_filter_fn", None)
