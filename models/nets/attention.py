"""What timm's attention modules compare: the queries and keys of tokens.

Knows nothing of blocks or of whole networks. timm has an attention of its own in most families, and few differences
between them: one product for queries, keys and values or three, biases kept apart from it, norms of each head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def has_keys(attention: Any) -> bool:
    """Whether queries and keys can be read off this module."""
    products = getattr(attention, "qkv", None), getattr(attention, "k_proj", None)
    return any(isinstance(product, nn.Linear) for product in products)


def key_channels(attention: Any) -> int:
    """Channels of the keys of all heads together; fewer than the queries' where heads share keys."""
    fused = getattr(attention, "qkv", None)
    return int(attention.k_proj.out_features if fused is None else fused.out_features // 3)


def _channels_a_head(attention: Any) -> int:
    heads = attention.heads if hasattr(attention, "heads") else attention.num_heads
    fused = getattr(attention, "qkv", None)
    return int((attention.q_proj.out_features if fused is None else fused.out_features // 3) // heads)


def queries_keys(attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [..., C] as the module takes them to queries and keys [..., heads, channels a head].

    After the norm of each head, where there is one (Swin V2 compares by cosine: length 1), and before rotary positions:
    a turned key says where its patch lies, and images are compared by what they show.
    """
    if getattr(attention, "qkv", None) is None:
        found = attention.q_proj(x), attention.k_proj(x)
    else:
        product = attention.qkv(x)
        if getattr(attention, "q_bias", None) is not None:
            product = product + torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        found = product.chunk(3, -1)[:2]
    width = _channels_a_head(attention)
    # Not `unflatten`: ONNX has it wrong where a graph leaves the batch open and nothing else.
    queries, keys = (part.reshape(*part.shape[:-1], -1, width) for part in found)
    if hasattr(attention, "logit_scale"):
        return F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
    norms = [getattr(attention, name, None) or nn.Identity() for name in ("q_norm", "k_norm")]
    return norms[0](queries), norms[1](keys)
