"""IIC: a small network from nothing, whose clusters say as much as they can of the same place under other light.

Knows nothing of files or bundles. This is our construction from the paper, not the authors' program: the baseline of
STEGO's and PiCIE's tables. A crop and the same crop under other light, mirrored or not, pass through one network to
cluster probabilities; mirroring is undone; what is maximized is the mutual information between both at the same place
and at every displacement of up to `displacement` pixels, averaged over displacements (training/losses/
mutual_information.py). A second head with `overcluster` times as many clusters learns the same beside it, and is left
behind.

Ours: displacements are whole cells of the code's grid, where the paper first brings probabilities to the image's
size; both heads learn in every step, not by turns; no Sobel filter; crops are cut at the scale of serving. The
network is the front of timm's VGG-11 with batch norm, four convolutions at stride 4, or any other CNN's.

What is served: the code is the K probabilities themselves, and the centroids are the corners of their simplex, so that
a label is the likeliest cluster, and interpolating scores interpolates probabilities.

Source: Ji et al., Invariant Information Clustering for Unsupervised Image Classification and Segmentation
(arXiv:1807.06653).
"""

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from models.nets.backbone import Backbone
from models.nets.build import build_cnn
from models.nets.encoder import Encoder
from training import distributed
from training.config import precision
from training.config.recipe import Section
from training.config.run import Run
from training.data import validity
from training.data.augment import ViewOptions, planes, relight
from training.data.prefetch import prefetch
from training.data.square_cache import SquareCache
from training.losses.collapse import signs
from training.losses.mutual_information import joints, mutual_information
from training.methods.base import Method
from training.trainer.seeds import mixed, seeded
from training.trainer.stage import Batch, Stage

_EPOCHS, _LEAST_STEPS, _MOST_STEPS = 10, 300, 6000


class IicConfig(Section):
    """The table [iic]."""

    levels: int = Field(1, ge=1, le=4)  # of the CNN: its map at stride 4, 8, 16 or 32
    # 0: 10 epochs, at least 300 steps and at most 6000
    steps: int = Field(0, ge=0)
    batch_size: int = Field(8, ge=2)
    lr: float = Field(1e-3, gt=0)
    displacement: int = Field(10, ge=0)  # pixels, the paper's T
    overcluster: int = Field(3, ge=0)  # clusters of the second head to each of the first; 0: there is none
    weight_entropy: float = Field(1.0, gt=0)  # the paper's λ
    jitter: float = Field(0.4, ge=0, lt=1)  # brightness, contrast, saturation: factors 1 ± this
    hue: float = Field(0.125, ge=0, le=0.5)  # share of the color circle, either way
    mirror: float = Field(0.5, ge=0, le=1)  # how often


class Iic(Method[IicConfig]):
    """CNN and two heads of cluster probabilities."""

    Config = IicConfig
    temperature: ClassVar[float] = 10.0  # of cosines with the corners: probabilities near 0 and 1 stay there

    def __init__(self, config: IicConfig, run: Run) -> None:
        super().__init__(config, run)
        asked, self.k, self.size = run.recipe.backbone, run.recipe.clusters.count, run.recipe.input.train_size
        with seeded(run.recipe.seed):
            backbone = build_cnn(
                **asked.model_dump(), levels=config.levels, needed="IIC trains a small CNN", instead="vgg11_bn"
            )
            self.network = Encoder(backbone, _probabilities(backbone, self.k))
            self.second = _probabilities(backbone, config.overcluster * self.k) if config.overcluster else None
        self.squares = SquareCache(run.images, (max(self.size, run.recipe.input.size),), run.cache, run.console)
        self.views = ViewOptions(size=(self.size, self.size), jitter=config.jitter, hue=config.hue, gamma=0, gray=0,
                                 blur=0, mirror=config.mirror)  # fmt: skip
        self.format = precision.memory_format(run.recipe.compute.precision, run.device)
        self.network.to(memory_format=self.format)
        self.to(run.device)

    def stages(self) -> list[Stage]:
        """One: backbone and both heads together."""
        steps = self.config.steps or min(_MOST_STEPS, max(_LEAST_STEPS, _EPOCHS * len(self._order(0))))
        groups = [{"params": list(self.parameters()), "lr": self.config.lr}]
        optimizer = precision.adam(self.run.recipe.compute.precision, self.run.device)
        remedy = f"iic.weight_entropy={self.config.weight_entropy + 0.5:g}"
        return [Stage("inform", steps, groups, self._batches, self._loss, remedy=remedy, optimizer=optimizer)]

    def centroids(self) -> Tensor:
        """float32 [K, K]: of each cluster the code of a place that is surely of it."""
        return torch.eye(self.k)

    current_centroids = centroids

    def _order(self, epoch: int) -> list[Tensor]:
        """Image numbers of every batch; what is left over is left out, if there is a whole batch."""
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, epoch, 0))
        found = torch.split(torch.randperm(len(self.run.images), generator=generator), self.config.batch_size)
        return list(found[:-1] if len(found) > 1 and len(found[-1]) < self.config.batch_size else found)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """A window of every image's central square, as it is and under other light.

        first, second  float [B, 3, S, S], 0..1
        mirrored       bool [B], whether the second is the mirror image
        valid          bool [B, h, w], cells of the first that hold data; absent: all of them do
        """
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, epoch, 1))
        (side,), size, grid = self.squares.sizes, self.size, 2 * (self.size // self.network.stride,)
        order = self._order(epoch)
        indices = [int(i) for batch in order for i in batch]
        squares = prefetch(lambda i: self.squares.load(i, side), indices, self.run.recipe.workers)
        for batch in order:
            corners = torch.randint(side - size + 1, (len(batch), 2), generator=generator).tolist()
            cut = [(slice(top, top + size), slice(left, left + size)) for top, left in corners]
            seen, known = zip(*islice(squares, len(batch)), strict=True)
            first = planes(np.stack([one[at] for one, at in zip(seen, cut, strict=True)]))
            mirrored = torch.rand(len(batch), generator=generator) < self.config.mirror
            second = _mirror(relight(first, self.views, generator), mirrored)
            masks = [None if mask is None else mask[at] for mask, at in zip(known, cut, strict=True)]
            valid = validity.stacked([validity.cells(mask, grid) for mask in masks], grid)
            yield {"first": first, "second": second, "mirrored": mirrored} | ({} if valid is None else {"valid": valid})

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        rows, device = distributed.share(len(batch["first"])).rows, self.run.device  # joints are sums over all shares
        views = torch.cat([batch["first"][rows], batch["second"][rows]]).to(device)
        pixels = ((255 * views - self.network.mean) / self.network.std).contiguous(memory_format=self.format)
        mirrored, valid = (
            batch["mirrored"][rows].to(device),
            batch["valid"][rows].to(device) if "valid" in batch else None,
        )
        with precision.autocast(self.run.recipe.compute.precision, device):
            features = self.network.backbone(pixels)
            found = self.network.head(features).float()
            finer = None if self.second is None else self.second(features).float()
        losses = {"information": self._missed(found, mirrored, valid)}
        if finer is not None:
            losses["overcluster"] = self._missed(finer, mirrored, valid)
        with torch.no_grad():
            first = found[: len(mirrored)]
            losses["log/sureness"] = validity.mean(first.amax(1), valid)
            losses |= signs(first, first.argmax(1), valid)
        return losses

    def _missed(self, found: Tensor, mirrored: Tensor, valid: Tensor | None) -> Tensor:
        """Minus the information between both views' probabilities [2b, K, h, w], averaged over displacements."""
        first, second = found.chunk(2)
        second = _mirror(second, mirrored)
        if valid is not None:
            first, second = first * valid[:, None], second * valid[:, None]
        tables = joints(first, second, self.config.displacement // self.network.stride)
        tables = distributed.share(distributed.world()).gather(tables[None]).sum(0)
        return -mutual_information(tables, self.config.weight_entropy).mean()


def _probabilities(backbone: Backbone, k: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(backbone.channels, k, 1), nn.Softmax(dim=1))


def _mirror(maps: Tensor, which: Tensor) -> Tensor:
    """Some of the maps [B, C, h, w] mirrored, those of `which`, bool [B]."""
    return torch.where(which[:, None, None, None], maps.flip(-1), maps)


METHOD = Iic
