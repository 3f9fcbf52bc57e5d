"""A backbone that learns nothing, under a head that may: what methods on frozen features train on, and export.

Knows nothing of losses, clusters or of where features are kept.
"""

from collections.abc import Callable

from torch import nn

from models.nets.backbone import Backbone
from models.nets.build import build
from models.nets.encoder import Encoder
from models.nets.tokens import TokenBackbone
from training.config.recipe import BackboneSection


def frozen_network(
    asked: BackboneSection,
    head: Callable[[Backbone], nn.Module],
    *,
    flip_average: bool,
    least_stride: int | None = None,
) -> Encoder:
    """The recipe's backbone, frozen, under the head that `head` makes for it.

    least_stride  finer features are averaged to cells of so many pixels, which can be centered; None: as they are
    """
    # Of a CNN without a neck the map at stride 16: the one at 32 has 7×7 cells at 224 pixels.
    backbone = build(**asked.model_dump(), levels=3).requires_grad_(False)
    if least_stride is not None:
        backbone = TokenBackbone(backbone, least_stride)
    return Encoder(backbone, head(backbone), flip_average=flip_average)
