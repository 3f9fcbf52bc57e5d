"""Weights from files: whose they are, in whose names, and whether they fit.

Knows nothing of how a network is chosen by name (build.py). Nothing in a file is executed.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from models.nets import families
from models.nets.backbone import Backbone, BackboneError, VitBackbone
from models.nets.checkpoints.reader import ForeignCheckpointError, read_tensors
from models.preprocess import Normalization

NORMALIZATION = "normalization"  # of a .safetensors file's own facts: a Normalization as JSON
_WRAPPED = re.compile(r"^(module\.|backbone\.|encoder_q\.|base_encoder\.|model\.)+")  # around the network's own names
_PARTS = ("teacher.", "target_encoder.", "state_dict.", "model_state.", "model_ema.", "model.")
_LATERAL = re.compile(r"neck\.laterals\.\d+\.weight")  # only what was pretrained here has a neck


@dataclass(frozen=True)
class Weights:
    """A network's tensors under its own names, and what their file tells besides.

    family         whose conventions they follow; empty: it does not tell
    normalization  of the pixels they were trained on; None: it does not tell
    """

    tensors: dict[str, Tensor]
    family: str = ""
    normalization: Normalization | None = None

    @property
    def laterals(self) -> list[Tensor]:
        """Of the neck that a network pretrained here has, one a level; others have none."""
        return [tensor for name, tensor in self.tensors.items() if _LATERAL.fullmatch(name)]


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
    for part in _PARTS:
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
    state = backbone.in_own_names(state)
    own = backbone.state_dict()
    inner: Sequence[str] = ("", "vit.", "body.", "body.model.")
    prefix = max(inner, key=lambda p: sum(p + key in own for key in state))
    fitting = {prefix + k: v for k, v in state.items() if prefix + k in own and own[prefix + k].shape == v.shape}
    missing = [k for k in own if k not in fitting and not k.endswith("num_batches_tracked")]
    if missing:
        raise BackboneError(
            f"weights {source}: {len(missing)} of {len(own)} tensors of this backbone are not in it"
            f" ({', '.join(missing[:3])} …): {why}"
        )
    backbone.load_state_dict(fitting, strict=False)
