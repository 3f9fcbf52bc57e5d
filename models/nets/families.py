"""Families of pretrained networks: whose conventions for positions and pixels some weights follow.

Knows nothing of how a network is built or read.

Pixels: every family but `timm` was trained on ImageNet's mean and std; timm's own say theirs (`pretrained_cfg`).
"""

import re
from collections.abc import Iterable

import timm

from models.nets.positions import DINO, Resampling

_PLAIN = Resampling(offset=0.0, antialias=False)
_ANTIALIASED = Resampling(offset=0.0, antialias=True)

# How position embeddings get to another grid; source: the authors' code.
FAMILIES: dict[str, Resampling] = {
    "dino": DINO,  # arXiv:2104.14294, interpolate_pos_encoding
    "ibot": DINO,  # arXiv:2111.07832, DINO's
    "dinov2": DINO,  # arXiv:2304.07193, interpolate_offset = 0.1
    "dinov2_registers": _ANTIALIASED,  # arXiv:2309.16588, its hub: interpolate_antialias, interpolate_offset = 0
    "msn": _PLAIN,  # arXiv:2204.07141, scale factor √(n / N), which of a square is h / g
    "mae": _PLAIN,  # arXiv:2111.06377, interpolate_pos_embed
    "deit": _PLAIN,  # arXiv:2012.12877, from which MAE has it
    "timm": _ANTIALIASED,  # augreg, CLIP and all others: timm's resample_abs_pos_embed
}

# What is in the files of one family alone, as the tensors' names begin or end; the first that fits.
_SIGNS = (
    (r"(^|\.)decoder_embed\.", "mae"),
    (r"^target_encoder\.", "msn"),
    (r"(^|\.)register_tokens$", "dinov2_registers"),
    (r"(^|\.)masked_embed$", "ibot"),
    (r"(^|\.)mask_token$", "dinov2"),
    (r"^teacher\.", "dino"),
)
# What others have as well: enough where no name says which.
_LIKELY = ((r"^reg_token$", "dinov2_registers"), (r"\.ls1\.gamma$", "dinov2"))


def of_tensors(names: Iterable[str]) -> str:
    """The family that a file's names, with all that stands before them, give away; empty: none does."""
    return _first(_SIGNS, list(names))


def likely(names: Iterable[str]) -> str:
    """The family of one ViT's tensors whose file told nothing, and which no timm name goes with."""
    return _first((*_SIGNS, *_LIKELY), list(names)) or "dino"


def of_timm(name: str) -> str:
    """The family of the weights timm has under a name; without a tag those that timm takes first."""
    base, _, tag = name.partition(".")
    if "dinov2" in base:
        return "dinov2_registers" if "_reg" in base else "dinov2"
    if base.startswith("deit"):
        return "deit"
    first = timm.get_pretrained_cfg(base, allow_unregistered=True)
    tag = tag or (first.tag if first is not None else None) or ""
    return tag if tag in ("dino", "mae") else "timm"


def _first(signs: Iterable[tuple[str, str]], names: list[str]) -> str:
    return next((family for sign, family in signs if any(re.search(sign, name) for name in names)), "")
