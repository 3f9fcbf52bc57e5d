"""A backbone's features as tokens: averaged to cells no finer than asked, around a center.

Knows nothing of how the center was found.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.nets.backbone import Backbone


class TokenBackbone(Backbone):
    """Another backbone's features, brought to a stride of at least `least_stride`, less `center`.

    A CNN's map at stride 4 has four times the tokens of a ViT with patches of 8, and attention or modularity sixteen
    times the pairs. `center` is a buffer [C] of zeros until someone fills it.
    """

    center: Tensor

    def __init__(self, inner: Backbone, least_stride: int = 1) -> None:
        super().__init__()
        self.inner = inner
        self.pool = math.ceil(least_stride / inner.stride)
        self.channels, self.stride = inner.channels, inner.stride * self.pool
        self.normalization = inner.normalization
        self.register_buffer("center", torch.zeros(inner.channels))

    @property
    def multiple(self) -> int:
        """Whole cells of the inner network and of its own."""
        return math.lcm(self.stride, self.inner.multiple)

    def takes_any_size(self) -> bool:
        """As the inner network does."""
        return self.inner.takes_any_size()

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, 3, H, W], H and W multiples of the stride → [B, C, H/stride, W/stride]."""
        features = self.inner(x)
        if self.pool > 1:
            features = F.avg_pool2d(features, self.pool)
        centered: Tensor = features - self.center[:, None, None]
        return centered
