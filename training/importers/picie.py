"""PiCIE's checkpoints: a torchvision ResNet, its decoder of four 1×1 convolutions, two classifiers of centroids.

The decoder's layer1 takes the coarsest map and layer4 the finest. Codes have length 1, centroids their own.

Source: PiCIE (arXiv:2103.17070); the names as its repository's checkpoints have them.
"""

import torch
from torch import Tensor

from models.errors import TesseraError, UsageError
from models.nets.backbone import CnnBackbone
from models.nets.encoder import Encoder
from models.nets.heads import FPNHead
from models.nets.weights import load_weights
from training.discovery.segmenter import Segmenter
from training.importers import Options, Parts, Published, convolution

LICENCE = "MIT, as PiCIE's repository"

# By whether a block has three convolutions, and how many blocks each layer has.
_BLOCKS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
}


def recognizes(parts: Parts) -> bool:
    """Whether these are PiCIE's."""
    return parts.has("decoder.layer4.weight") or parts.has("classifier1_state_dict.module.weight")


def read(parts: Parts, options: Options) -> Published:
    """Encoder with codes of length 1, and one classifier's centroids, by dot product."""
    if options.backbone or options.heads is not None:
        raise UsageError(
            "--backbone and --heads belong to ViTs, and PiCIE's ResNet is in its checkpoint: leave them out"
        )
    parts.setting("metric_test", "cosine", ("cosine",))  # elsewhere its codes have lengths of their own
    backbone, name = resnet(parts.around("layer1.0.conv1.weight", "the backbone, a ResNet,"))
    channels = backbone.pyramid_channels
    layers = [f"decoder.layer{4 - level}" for level in range(4)]  # from the finest map
    dim = len(parts.one(f"{layers[0]}.weight", "the decoder"))
    head = FPNHead(channels, dim)
    for level, layer in enumerate(layers):
        head.laterals[level] = convolution(parts, layer, channels[level], dim, "the decoder")
    which = options.classifier or 1
    found = Segmenter(Encoder(backbone, head, normalize=True), _centroids(parts, which, dim), "dot", 1.0)
    notes = () if options.classifier else ("classifier 1 of two is taken; --classifier 2 takes the other",)
    return Published(found, name, LICENCE, notes)


def resnet(state: dict[str, Tensor]) -> tuple[CnnBackbone, str]:
    """The ResNet that tensors in torchvision's names make, and its name. Raises TesseraError, BackboneError."""
    counts = tuple(len({key.split(".")[1] for key in state if key.startswith(f"layer{n}.")}) for n in range(1, 5))
    name = _BLOCKS.get(("layer1.0.conv3.weight" in state, counts))
    if name is None:
        known = ", ".join(_BLOCKS.values())
        raise TesseraError(f"the backbone has {counts} blocks, as none of {known}: it is not read here")
    backbone = CnnBackbone(name)
    load_weights(backbone, state, "of the checkpoint", "the file is not whole")
    return backbone, name


def _centroids(parts: Parts, which: int, dim: int) -> Tensor:
    what, states = f"classifier {which}", [f"classifier{which}_state_dict{inner}" for inner in (".module", "")]
    state = next((s for s in states if parts.has(f"{s}.weight")), states[0])
    weight = parts.one(f"{state}.weight", what).flatten(1)
    if weight.shape[1] != dim:
        raise TesseraError(f"{what} takes {weight.shape[1]} numbers a pixel, where the decoder gives {dim}")
    if parts.has(f"{state}.bias") and torch.count_nonzero(parts.one(f"{state}.bias", what)):
        raise TesseraError(
            f"{what} has a bias: it was learned, as MDC's, and is no set of centroids; it is not read here"
        )
    return weight
