"""SmooSeg: a code whose clusters change where frozen features change, and nowhere else.

Knows nothing of how an image is decoded or a bundle written. The backbone is frozen: its features are computed once
(training/features/store.py) and every step works on them; only the head and the prototypes learn. Places of an image
and of another one whose features are alike are to have like clusters, by the energy of all their pairs
(training/losses/smoothness.py), which moves the head alone; prototypes fit the labels that their moving average gives
(training/losses/prototypes.py), which is what is exported.

No label exists here: what is kept is the last step. The published script keeps the step with the best mIoU on the
labels of val, which flatters its figures. Ours: `shifts = "auto"`, where b is read off the features instead of
tuned by hand, see `SmooSeg.shifts_for`, and fewer steps for folders.

Written from the paper's abstract, from what was remembered of the rest, and from notes of the published constants
(shifts, rates, sizes). The paper itself was not at hand, and no line of the published code stands here.

Source: Lan et al., SmooSeg: Smoothness Prior for Unsupervised Semantic Segmentation (arXiv:2310.17874).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.nets.heads import ProjectionHead
from models.terminal.progress import say
from training import distributed
from training.config import precision
from training.config.recipe import Section
from training.config.run import Run
from training.config.work import Work
from training.data import validity
from training.features import stand_ins
from training.features.frozen import frozen_network
from training.features.store import FeatureOptions, open_features
from training.losses.collapse import signs
from training.losses.correspondence import derangement, drop_channels, normalize
from training.losses.prototypes import Prototypes
from training.losses.smoothness import energy, moments
from training.methods.base import Method
from training.trainer.seeds import mixed, seeded
from training.trainer.stage import Batch, Stage

TERMS = ("self", "rand")

_PUBLISHED_STEPS = 3000
_SHIFT_CROPS = 64  # with so many places of each, a million pairs: their quantiles no longer move
_SHIFT_PLACES = 121


class SmooSegConfig(Section):
    """The table [smooseg]. Shifts: the published ones for COCO-Stuff with DINO ViT-S."""

    code_dim: int = Field(64, ge=2)
    five_crop: bool = False
    precision: Literal["float16", "float32"] = "float16"  # of the features on disk
    # 0: 60 epochs, at least 300 steps and at most the published 3000
    steps: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    # finer features are averaged to cells of so many pixels: a CNN's at stride 4 cost four times a ViT's; 0: all
    least_stride: int = Field(0, ge=0)
    temperature: float = Field(0.1, gt=0)  # of the assignments that are compared
    weight_self: float = Field(1.0, ge=0)
    weight_rand: float = Field(1.0, ge=0)
    shifts: Literal["fixed", "auto"] = "fixed"
    shift_self: float = -0.02
    shift_rand: float = 0.48
    # The share of pairs that `auto` lets attract each other.
    attract_self: float = Field(0.8, gt=0, lt=1)
    attract_rand: float = Field(0.02, gt=0, lt=1)
    momentum: float = Field(0.998, ge=0, lt=1)  # of the moving average
    lr: float = Field(1e-4, gt=0)
    prototype_lr: float = Field(5e-4, gt=0)
    flip_average: bool = False  # when serving


class SmooSeg(Method[SmooSegConfig]):
    """Frozen backbone, projection head, prototypes."""

    shifts: Tensor

    Config = SmooSegConfig

    def __init__(self, config: SmooSegConfig, run: Run) -> None:
        super().__init__(config, run)
        with seeded(run.recipe.seed):
            self.network = frozen_network(
                run.recipe.backbone,
                lambda backbone: ProjectionHead(backbone.channels, config.code_dim, activation=nn.SiLU),
                flip_average=config.flip_average,
                least_stride=config.least_stride or None,
            )
            self.prototypes = Prototypes(run.recipe.clusters.count, config.code_dim)
        self.register_buffer("shifts", torch.tensor([config.shift_self, config.shift_rand]))
        self.to(run.device)
        self.train()

    def train(self, mode: bool = True) -> "SmooSeg":
        """The head trains; the frozen backbone never leaves eval mode."""
        super().train(mode)
        self.network.backbone.eval()
        return self

    def prepare(self) -> None:
        """Features, from disk where they are there; the shifts, if they are to be read off them."""
        self.features = open_features(self.network, self._feature_options(), self.run)
        self.train()
        if self.config.shifts == "auto":
            found = self.shifts_for([self.config.attract_self, self.config.attract_rand])
            self.shifts.copy_(torch.tensor(found))
            said = ", ".join(f"{term} {shift:.3f}" for term, shift in zip(TERMS, found, strict=True))
            say(self.run.console, f"shifts read off the features: {said}")

    def _feature_options(self) -> FeatureOptions:
        return FeatureOptions(self.config.five_crop, self.config.precision)

    def work(self) -> list[Work]:
        """The features."""
        return [stand_ins.features_work(self.network.backbone, self._feature_options(), self.run)]

    def stand_in(self) -> None:
        """Features of the right shape."""
        self.features = stand_ins.features(self.network.backbone, self._feature_options(), self.run)

    def stages(self) -> list[Stage]:
        """One: head and prototypes together."""
        per_epoch = sum(1 for _ in self._batches(0))
        steps = self.config.steps or min(_PUBLISHED_STEPS, max(300, 60 * per_epoch))
        groups = [
            {"params": list(self.network.head.parameters()), "lr": self.config.lr},
            {"params": [self.prototypes.student], "lr": self.config.prototype_lr},
        ]
        follow = partial(self.prototypes.follow, self.config.momentum)
        remedy = "backbone.features=keys" if self.config.shifts == "auto" else "smooseg.shifts=auto"
        return [Stage("smooth", steps, groups, self._batches, self._loss, after_step=follow, remedy=remedy)]

    def centroids(self) -> Tensor:
        """The moving average of the prototypes, float32 [K, D] at length 1."""
        return self.prototypes.centroids()

    current_centroids = centroids

    def shifts_for(self, shares: Sequence[float]) -> list[float]:
        """The shift of each term (self, rand) above which the given share of all pairs' closeness W lies.

        Ours, not the paper's: there, b is tuned per data set and backbone.
        """
        return [float(torch.quantile(found, 1 - share)) for found, share in zip(self._closeness(), shares, strict=True)]

    def _closeness(self) -> Iterator[Tensor]:
        """Of each term (self, rand) W of a sample of pairs, under dropout as in a step."""
        features, device = self.features, self.run.device
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, -1))
        crops = torch.randperm(len(features), generator=generator)[:_SHIFT_CROPS]
        maps = drop_channels(features.batch(crops.tolist(), device), self.config.dropout, generator)
        units = normalize(maps).flatten(2)
        known = features.valid_cells(crops.tolist(), device)
        valid = torch.ones_like(units[:, 0], dtype=torch.bool) if known is None else known.flatten(1)
        mean = (units * valid[:, None]).sum(2) / valid.sum(1)[:, None]

        def drawn() -> Tensor:
            at = validity.draw(valid, _SHIFT_PLACES, generator)
            return units.gather(2, at[:, None].expand(-1, units.shape[1], -1))

        here, there = drawn(), drawn()
        for order in (torch.arange(len(crops)), self._others(len(crops), generator)):
            centered = here.transpose(1, 2) @ (there - mean[..., None])[order]
            yield centered + (mean * mean[order]).sum(1).mean()

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Every crop once, in an order that the seed and the epoch decide.

        crop  int64 [B];  seed  of everything the step draws
        """
        seed = self.run.recipe.seed
        generator = torch.Generator().manual_seed(mixed(seed, epoch))
        order = torch.randperm(len(self.features), generator=generator)
        for i, crop in enumerate(torch.split(order, self.config.batch_size)):
            if len(crop) == 1 and i:
                continue  # alone it has no other image
            yield {"crop": crop, "seed": mixed(seed, epoch, i)}

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        config, device = self.config, self.run.device
        generator = torch.Generator().manual_seed(batch["seed"])
        crops, count = batch["crop"].tolist(), len(batch["crop"])
        share = distributed.share(count)  # of the head's work; the loss is every process's own, of the whole batch

        def dropout(x: Tensor, rows: slice = slice(None)) -> Tensor:  # drawn for all rows, whoever has which of them
            return x * drop_channels(x.new_ones(count, x.shape[1], 1, 1), config.dropout, generator)[rows]

        # Channels last: 1×1 convolutions take two thirds of the time.
        maps = self.features.batch(crops, device).contiguous(memory_format=torch.channels_last)
        valid = self.features.valid_cells(crops, device)
        with precision.autocast(self.run.recipe.compute.precision, device):
            code = self.network.head(maps[share.rows], partial(dropout, rows=share.rows))
        code = share.gather(code.float())
        cosines = self.prototypes(code)
        labels = cosines.argmax(1)
        images = moments(dropout(maps), (cosines / config.temperature).softmax(1), valid)  # a third draw
        terms = {"self": energy(images, images, self.shifts[0])}
        if count > 1:
            others = images.of(self._others(count, generator).to(device))
            terms["rand"] = energy(images, others, self.shifts[1])
        weights = dict(zip(TERMS, (config.weight_self, config.weight_rand), strict=True))
        losses = {name: weights[name] * term.loss for name, term in terms.items()}
        losses["data"] = self.prototypes.loss(code, labels, valid)
        losses |= {f"log/{name}_agreement": term.agreement.detach() for name, term in terms.items()}
        return losses | signs(code, labels, valid)

    @staticmethod
    def _others(count: int, generator: torch.Generator) -> Tensor:
        """Another image of the batch for each; where there is no other, itself."""
        return derangement(count, generator) if count > 1 else torch.arange(count)


METHOD = SmooSeg
