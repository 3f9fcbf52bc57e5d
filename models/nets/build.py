"""The backbone of a name: which of timm's networks, how it is run here, and with which weights.

Knows nothing of methods, heads or clusters.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models import model_entrypoint
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from models.nets import families
from models.nets.backbone import Backbone, BackboneError, CnnBackbone, VitBackbone, VitFeatures
from models.nets.families import FAMILIES
from models.nets.timm_backbone import ARCHITECTURES, TimmBackbone
from models.nets.weights import Weights, load_weights, read_weights
from models.preprocess import IMAGENET, Normalization

_VITS = ("vision_transformer", "deit", "eva")  # timm's modules of plain and rotary ones
_OTHER_POSITIONS = {"eva", *ARCHITECTURES} - set(_VITS[:2])  # whose files use tensor names of families.py otherwise


def require_known(name: str) -> str:
    """The name without what names its weights. Raises BackboneError for one that timm does not know."""
    base = name.split(".")[0]
    if not timm.is_model(base):
        near = get_close_matches(base, timm.list_models(), n=5, cutoff=0.5)
        raise BackboneError(f"backbone {name!r} is not a timm name" + (f"; near it: {', '.join(near)}" if near else ""))
    return base


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
    features      of a network with attention, see VitBackbone
    family        whose conventions a plain ViT's weights follow (families.py); empty: the file's, else the name's
    mean, std     of the pixels, as fractions of 255; empty: those of the weights
    levels, neck  of a CNN, see CnnBackbone; a file written by `training/pretrain.py` brings its own. Of another
                  network with maps at several strides the one that a CNN of so many levels ends with

    An image higher than wide goes through it once, so that a network that takes squares alone is refused before
    anything is computed with it. Raises BackboneError.
    """
    base = require_known(name)
    if family and family not in FAMILIES:
        raise BackboneError(f"backbone.family {family!r}: there are {', '.join(FAMILIES)}")
    file = None
    if str(weights) not in ("timm", "random"):
        file = read_weights(Path(weights))
        levels, neck = (len(file.laterals), file.laterals[0].shape[0]) if file.laterals else (levels, neck)
    pretrained = str(weights) == "timm"
    try:
        module = model_entrypoint(base).__module__.rpartition(".")[2]
        told = file.family if file is not None and module not in _OTHER_POSITIONS else ""
        family = family or told or families.of_timm(name)
        backbone = _create(name, module, features, family, levels, neck, pretrained)
        own = IMAGENET if str(weights) == "random" else _normalization(name, family, file)
    except BackboneError as error:
        raise BackboneError(f"backbone {name!r}: {error}") from error
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
    _require_any_shape(backbone, name)
    return backbone


def build_cnn(name: str, *, needed: str, instead: str, dim: int = 0, **how: Any) -> CnnBackbone:
    """`build`, for whom only a CNN will do.

    needed, instead  what the error says of any other network, and the name that it proposes
    dim              channels of a neck, where the weights bring none; 0: none is made
    how              as `build` takes it

    Raises BackboneError.
    """
    backbone = build(name, **how)
    if not isinstance(backbone, CnnBackbone):
        raise BackboneError(f"{needed}, and {name} is none: set backbone.name={instead}")
    if dim and backbone.neck is None:
        backbone.add_neck(dim)
    return backbone


def _create(
    name: str, module: str, features: VitFeatures, family: str, levels: int, neck: int, pretrained: bool
) -> Backbone:
    listed, config = ARCHITECTURES.get(module), timm.get_pretrained_cfg(name, allow_unregistered=True)
    if listed is None and module not in _VITS and not (config is not None and config.fixed_input_size):
        if features == "keys":
            raise BackboneError("it has no attention, hence no keys: set backbone.features to tokens")
        return CnnBackbone(name, levels=levels, neck=neck, pretrained=pretrained)
    options = {} if listed is None else listed.options
    network = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    if isinstance(network, (VisionTransformer, Eva)) and type(network.patch_embed) is PatchEmbed:
        return VitBackbone(network, features=features, family=family)
    return TimmBackbone(network, features=features, levels=levels)


@torch.no_grad()
def _require_any_shape(backbone: Backbone, name: str) -> None:
    """Raises BackboneError where an image that is higher than wide does not come back as a map of its shape."""
    height, width = 5 * backbone.multiple, 3 * backbone.multiple
    wanted = (1, backbone.channels, height // backbone.stride, width // backbone.stride)
    training = backbone.training
    try:
        answer: tuple[int, ...] | str = tuple(backbone.eval()(torch.zeros(1, 3, height, width)).shape)
    except Exception as error:  # whatever timm's networks raise
        answer = str(error).strip().partition("\n")[0] or type(error).__name__
    finally:
        backbone.train(training)
    if answer != wanted:
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        own = f"{config.input_size[2]}×{config.input_size[1]}" if config is not None else "one size"
        raise BackboneError(
            f"backbone {name!r} cannot take an image of {width}×{height} pixels ({answer}), and training crops and"
            f" served images have other sizes than its own {own}: take one of the families in docs/backbones.md"
        )


def _normalization(name: str, family: str, file: Weights | None) -> Normalization:
    """Of the pixels that weights from timm's hub or a file were trained on."""
    if file is not None and file.normalization is not None:
        return file.normalization
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if family != "timm" or (file is not None and file.laterals) or config is None:
        return IMAGENET
    return Normalization(mean=config.mean, std=config.std)
