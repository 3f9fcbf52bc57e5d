"""The tests' own method: the whole of it, one file. Colors averaged over 8×8 pixels, and centroids that drift to them.

Knows nothing of the registry that finds it, of the loop, or of bundles.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.nets.backbone import Backbone
from models.nets.encoder import Encoder
from training.config.recipe import Section
from training.config.run import Run
from training.data.crops import square
from training.methods.base import Method
from training.trainer.stage import Batch, Stage


class ToyConfig(Section):
    """The table [toy]."""

    code_dim: int = Field(6, ge=2)
    steps: int = Field(20, ge=1)
    lr: float = Field(0.01, gt=0)


class MeanColor(Backbone):
    """The mean of every 8×8 pixels."""

    channels, stride = 3, 8

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, 3, H, W] → [B, 3, H/8, W/8]."""
        return F.avg_pool2d(x, self.stride)


class Toy(Method):
    """Every code is drawn to the centroid nearest to it, and must still tell its color."""

    Config = ToyConfig
    assignment: ClassVar[Literal["cosine", "dot"]] = "cosine"

    def __init__(self, config: ToyConfig, run: Run) -> None:
        super().__init__(config, run)
        self.config, self.run = config, run
        self.network = Encoder(MeanColor(), nn.Conv2d(3, config.code_dim, 1))
        self.means = nn.Parameter(torch.randn(run.recipe.clusters.count, config.code_dim))
        self.color = nn.Conv2d(config.code_dim, 3, 1)
        self.to(run.device)

    def stages(self) -> list[Stage]:
        """One."""
        groups = [{"params": list(self.parameters()), "lr": self.config.lr}]
        return [Stage("drift", self.config.steps, groups, self._batches, self._loss)]

    def encoder(self) -> Encoder:
        """Mean colors, then one linear map."""
        return self.network

    def centroids(self) -> Tensor:
        """float32 [K, D], rows of length 1."""
        return F.normalize(self.means.detach(), dim=1)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        order = torch.randperm(len(self.run.images), generator=torch.Generator().manual_seed(epoch))
        for few in torch.split(order, 4):
            squares = [square(self.run.images[i], self.run.recipe.input.train_size) for i in few.tolist()]
            yield {"pixels": torch.stack([torch.from_numpy(one.copy()) for one in squares])}

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        pixels = batch["pixels"].to(self.run.device)
        code = F.normalize(self.network(pixels), dim=1)
        nearest = torch.einsum("kd,bdhw->bkhw", F.normalize(self.means, dim=1), code).amax(1)
        truth = F.avg_pool2d(pixels.permute(0, 3, 1, 2) / 255, MeanColor.stride)
        return {"drift": (1 - nearest).mean(), "color": F.mse_loss(self.color(code), truth)}


METHOD = Toy
