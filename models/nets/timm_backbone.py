"""Any other network of timm's as a backbone, by timm's own forward pass: windows, relative positions, pyramids.

Knows nothing of names or weights. Which families there are, and what is particular to each: `ARCHITECTURES`.
"""

import copy
import math
import warnings
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import torch
from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.models.hiera import Reroll, Unroll
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn

from models.nets import attention
from models.nets.backbone import Backbone, BackboneError, VitFeatures, in_timms_names

Size = tuple[int, int]


class Architecture(NamedTuple):
    """What is particular to the networks of one of timm's modules.

    options  for `timm.create_model`, with which they take more sizes
    dynamic  their forward pass takes other sizes as it is; else positions are resampled by timm's `set_input_size`
    open     an exported graph leaves the size open
    normed   the final norm can be asked for
    keys     where tokens are found as the last attention takes them: "attention", what it is given; "norm" and "block",
             for attention in windows: what the norm before it answers, or the block is given; "": it has no keys
    """

    options: Mapping[str, Any] = MappingProxyType({})
    dynamic: bool = False
    open: bool = False
    normed: bool = True
    keys: Literal["attention", "norm", "block", ""] = ""


_ANY = MappingProxyType({"strict_img_size": False})  # windows and shifts of the trained size at every size
# By the name of timm's module. Those that are not here are tried as `Architecture()`.
ARCHITECTURES: dict[str, Architecture] = {
    "beit": Architecture(keys="attention"),  # BEiT, arXiv:2106.08254; v2, 2208.06366
    "hiera": Architecture(normed=False, keys="attention"),  # arXiv:2306.00989
    "hieradet_sam2": Architecture(normed=False, keys="norm"),  # SAM 2, arXiv:2408.00714
    "swin_transformer": Architecture(_ANY, dynamic=True, open=True, keys="norm"),  # arXiv:2103.14030
    "swin_transformer_v2": Architecture(_ANY, dynamic=True, open=True, keys="block"),  # arXiv:2111.09883
    "vision_transformer": Architecture(keys="attention"),  # those whose patches a CNN makes
    "vision_transformer_relpos": Architecture(keys="attention"),
    "vision_transformer_sam": Architecture(keys="attention"),  # arXiv:2304.02643
}


class TimmBackbone(Backbone):
    """One map of a timm network: of its last block, after the final norm, or of one stage of a pyramid.

    network   as timm makes it, without a classifier
    features  tokens: what its forward pass answers (SAM's neck included); keys: of the last attention before that
    levels    of a pyramid the coarsest map with a stride of at most 2 · 2^levels is taken, else the finest

    What belongs to positions is resampled for each size as timm does when it is told another one (`set_input_size`),
    once for each size; all other weights are shared with the network. Frozen use only: what was resampled does not
    follow weights that learn.

    Raises BackboneError: it has no keys, no map of its own, or takes no image of this size.
    """

    def __init__(self, network: Any, *, features: VitFeatures = "tokens", levels: int = 4) -> None:
        super().__init__()
        self.body = network
        self.features = features
        self.architecture = ARCHITECTURES.get(_module(network), Architecture())
        if not hasattr(network, "forward_intermediates"):
            raise BackboneError("timm has no way to its maps: take another network")
        strides = [_stride(stage) for stage in network.feature_info]
        coarsest = max(2 << levels, min(strides))
        self.index = max(i for i, stride in enumerate(strides) if stride <= coarsest)
        self.stage = network.feature_info[self.index]
        self.stride = strides[self.index]
        self._whole = math.lcm(*strides)
        for block in network.modules():
            if isinstance(block, (SwinTransformerBlock, SwinTransformerV2Block)):
                block.get_attn_mask = partial(_shifted_window_mask, block)
        self._sized: dict[tuple[int, int, torch.device], Any] = {}
        self.register_load_state_dict_post_hook(_forget_sizes)  # type: ignore[no-untyped-call]
        self.channels: int = self.stage["num_chs"]
        if self.architecture.normed and self.index == len(strides) - 1:
            self.channels = self.stage.get("num_chs_norm", self.channels)
        if features == "keys":
            attentive = getattr(self._block(network), "attn", None)
            if not self.architecture.keys or not attention.has_keys(attentive):
                raise BackboneError("it has no keys that can be read off: set backbone.features to tokens")
            self.channels = attention.key_channels(attentive)

    @property
    def multiple(self) -> int:
        """Whole cells of every map on the way."""
        return self._whole

    def takes_any_size(self) -> bool:
        """Whether its family is one of which an exported graph can leave the size open."""
        return self.architecture.open

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, 3, H, W], H and W multiples of `multiple` → [B, C, h, w]."""
        network = self.body if self.architecture.dynamic else self._at((int(x.shape[2]), int(x.shape[3])), x.device)
        given: list[Tensor] = []
        hook = self._watch(network, given) if self.features == "keys" else None
        try:
            maps = network.forward_intermediates(
                x,
                indices=[self.index],
                norm=self.architecture.normed,
                intermediates_only=True,
                stop_early=True,
            )
        finally:
            if hook is not None:
                hook.remove()
        found: Tensor = maps[0]
        if self.features == "keys":
            found = self._keys(network, given[0], x.shape[2] // self.stride, x.shape[3] // self.stride)
        return found

    def in_own_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """As timm reads its authors' files."""
        return in_timms_names(state, self.body)

    def _block(self, network: Any) -> Any:
        """The last block of the stage that is answered with."""
        found = network.get_submodule(self.stage["module"])
        return found.blocks[-1] if hasattr(found, "blocks") else found

    def _watch(self, network: Any, given: list[Tensor]) -> Any:
        """A hook that notes what the last attention is given, before it is cut into windows."""
        block = self._block(network)
        if self.architecture.keys == "norm":
            return block.norm1.register_forward_hook(lambda module, tokens, answer: given.append(answer))
        place = block.attn if self.architecture.keys == "attention" else block
        return place.register_forward_pre_hook(lambda module, tokens: given.append(tokens[0]))

    def _keys(self, network: Any, tokens: Tensor, height: int, width: int) -> Tensor:
        """The keys of tokens [B, T, C] or [B, h, w, C], head by head: [B, C, h, w]."""
        block = self._block(network)
        keys = attention.queries_keys(block.attn, tokens)[1].reshape(*tokens.shape[:-1], self.channels)
        if hasattr(network, "reroll"):  # Hiera keeps its tokens window by window
            keys = network.reroll(keys, list(network.blocks).index(block))
        elif keys.dim() == 3:
            keys = keys[:, network.num_prefix_tokens :].reshape(keys.shape[0], height, width, -1)
        return keys.permute(0, 3, 1, 2)

    def _at(self, size: Size, device: torch.device) -> Any:
        """The network with positions for images of this size, made once; it shares every other weight."""
        found = self._sized.get((*size, device))
        if found is None:
            with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # timm's resampling makes torch warn of its slowness
                shared: dict[int, Any] = {id(p): nn.Parameter(p.data, False) for p in self.body.parameters()}
                found = copy.deepcopy(self.body, shared)
                _resize(found, size)
            self._sized[(*size, device)] = found
        return found


def _shifted_window_mask(block: Any, x: Tensor | None = None, **made_of: Any) -> Tensor | None:
    """timm's mask of shifted windows, by comparisons where timm writes into slices, which make a large graph.

    x        float32 [B, H, W, C], H and W whole windows; without it, by timm itself
    returns  float32 [windows, cells, cells], −100 between cells that only the shift made neighbors; None: no shift
    """
    if x is None or not any(block.shift_size):
        return cast(Tensor | None, type(block).get_attn_mask(block, x, **made_of))
    sides = zip(x.shape[1:3], block.window_size, block.shift_size, strict=True)
    steps = [(torch.arange(side, device=x.device), side, window, shift) for side, window, shift in sides]
    down, across = ((at >= side - window).to(x) + (at >= side - shift) for at, side, window, shift in steps)
    parts = 3 * down[:, None] + across
    (tall, wide), cells = block.window_size, math.prod(block.window_size)
    parts = parts.view(x.shape[1] // tall, tall, x.shape[2] // wide, wide).transpose(1, 2).reshape(-1, cells)
    apart: Tensor = parts[:, :, None] != parts[:, None]
    return -100 * apart.to(x)


def _forget_sizes(backbone: TimmBackbone, keys: Any) -> None:
    backbone._sized.clear()


def _module(network: nn.Module) -> str:
    return type(network).__module__.rpartition(".")[2]


def _stride(stage: Mapping[str, Any]) -> int:
    reduction = stage["reduction"]
    return int(max(reduction) if isinstance(reduction, (tuple, list)) else reduction)


def _resize(network: Any, size: Size) -> None:
    """Brings what belongs to positions to images of another size; where there is no such thing, nothing changes."""
    if _module(network) == "hiera":
        _resize_hiera(network, size)
    elif _module(network) == "vision_transformer_sam":  # resamples as it runs, in a way that no graph has
        grid = [side // patch for side, patch in zip(size, network.patch_embed.patch_size, strict=True)]
        network.pos_embed = nn.Parameter(resample_abs_pos_embed_nhwc(network.pos_embed, grid), False)
    elif _module(network) == "hieradet_sam2":  # likewise: its positions are computed once, by its own rule
        grid = [side // step for side, step in zip(size, network.patch_embed.proj.stride, strict=True)]
        nothing = network.pos_embed.new_zeros(1, *grid, network.pos_embed.shape[1])
        network._pos_embed = partial(torch.add, network._pos_embed(nothing))
    elif hasattr(network, "set_input_size"):
        network.set_input_size(img_size=size)


def _resize_hiera(network: Any, size: Size) -> None:
    """timm resamples no Hiera: what follows from the size is made anew, positions are resampled as timm's others."""
    grid = [side // stride for side, stride in zip(size, network.patch_stride, strict=True)]
    if network.pos_embed is not None and network.pos_embed_win is None:
        resampled = resample_abs_pos_embed(
            network.pos_embed, grid, old_size=network.tokens_spatial_shape, num_prefix_tokens=0
        )
        network.pos_embed = nn.Parameter(resampled, False)
    network.tokens_spatial_shape = grid
    network.mask_spatial_shape = [side // unit for side, unit in zip(grid, network.mask_unit_size, strict=True)]
    schedule = [network.q_stride] * len(network.stage_ends[:-1])
    network.unroll = Unroll(size, network.patch_stride, schedule)
    network.reroll = Reroll(size, network.patch_stride, schedule, network.stage_ends, network.q_pool)
