"""The network that is pretrained: a small backbone, and a projection for the objective alone.

Knows nothing of objectives, views or steps.
"""

import torch
from torch import Tensor, nn

from models.nets.build import build
from training.pretraining.options import PretrainOptions


class Network(nn.Module):
    """Backbone with its neck, and the projection that only the loss sees."""

    def __init__(self, options: PretrainOptions) -> None:
        super().__init__()
        self.backbone = build(options.backbone, "random", levels=options.levels, neck=options.dim)
        self.projection = nn.Sequential(
            nn.Linear(options.dim, 2 * options.dim),
            nn.BatchNorm1d(2 * options.dim),
            nn.ReLU(),
            nn.Linear(2 * options.dim, options.dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Codes float [B, D, h, w] at stride 4 of images float [B, 3, H, W], 0..1."""
        own = self.backbone.normalization
        mean = torch.tensor(own.mean, device=images.device)[:, None, None]
        std = torch.tensor(own.std, device=images.device)[:, None, None]
        pixels = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        code: Tensor = self.backbone(pixels)
        return code
