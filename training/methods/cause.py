"""CAUSE: a codebook of concepts found by modularity, a head that learns to tell them apart, clusters by modularity.

Knows nothing of how an image is decoded or a bundle written. The backbone is frozen: its features are computed
once (training/features/store.py). Three stages: `codebook` learns rows that stand for communities of tokens, `contrast`
trains a head whose projections agree where the rows are alike, `probe` learns the cluster centers on the head's
moving average, which is what is exported. `head = "mlp"` is CAUSE-MLP, `head = "tr"` CAUSE-TR.

No label exists here. The published script trains the evaluated head with labels in its last stage, so its figures
cannot be compared with ours. Further differences: a ViT-S has six heads (there twelve), an image without an
attracting pair counts for nothing (there NaN), the TR head serves every size (there one). Ours: `center`,
`probe_start = "kmeans"`, `thresholds = "auto"`, `least_stride`, and least numbers of steps, for folders where an
epoch has three.

Source: Kim et al., Causal Unsupervised Semantic Segmentation (arXiv:2310.07379).
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import TesseraError
from models.nets.backbone import Backbone
from models.nets.codebook import CodebookDecoder, quantize
from models.nets.heads import ProjectionHead
from models.nets.tokens import TokenBackbone
from models.terminal.progress import say
from training import distributed
from training.clustering.kmeans import kmeans
from training.config import precision
from training.config.recipe import Section
from training.config.run import Run
from training.config.work import Work
from training.data import validity
from training.data.preprocess import input_spec
from training.features import stand_ins
from training.features.frozen import frozen_network
from training.features.store import FeatureOptions, open_features
from training.losses.collapse import signs
from training.losses.concepts import ConceptBank, concept_contrast, ema_update
from training.losses.modularity import draw_picks, modularity_loss, places, take
from training.losses.probes import ClusterProbe
from training.methods.base import Method
from training.trainer.seeds import mixed, seeded
from training.trainer.stage import Batch, Stage

_CLIP = {"mlp": 0.1, "tr": 2.0}  # COCO's; Cityscapes has 1
_EPOCHS = {"mlp": (1, 2, 1), "tr": (1, 2, 5)}  # codebook, contrast, probe
_LEAST_STEPS = (150, 200, 150)  # of the same
_HALVED_EVERY = 2  # published epochs of the last stage
_SAMPLED_CROPS = 64  # 50 000 tokens at 224 pixels and stride 8: quantiles of their pairs no longer move
_CODED_CROPS = 1024

Thinner = Callable[..., Tensor]


class CauseConfig(Section):
    """The table [cause]; the published COCO values."""

    head: Literal["mlp", "tr"] = "mlp"
    code_dim: int = Field(90, ge=2)
    projection_dim: int = Field(2048, ge=2)
    concepts: int = Field(2048, ge=2)  # rows of the codebook
    hidden: int = Field(2048, ge=1)  # width of the TR head's feed-forward part
    five_crop: bool = False
    precision: Literal["float16", "float32"] = "float16"  # of the features on disk
    # Of each stage. 0: the published epochs (codebook 1, contrast 2, probe 1 or with the TR head 5), and at least
    # 150, 200 and 150 steps: of 50 photos an epoch has four.
    steps: int = Field(0, ge=0)
    batch_size: int = Field(16, ge=1)
    cell: int = Field(4, ge=1)  # one random token of every cell × cell; 1: all
    bank: int = Field(100, ge=0)  # projections kept per concept; 0: no bank
    temperature: float = Field(0.1, gt=0)  # of the modularity
    contrast_temperature: float = Field(0.07, gt=0)
    thresholds: Literal["fixed", "auto"] = "fixed"
    positive: float = Field(0.3, ge=-1, le=1)  # concepts with a larger cosine attract
    negative: float = Field(0.1, ge=-1, le=1)  # with a smaller one repel
    # The shares of pairs of tokens that `auto` lets attract and repel.
    attract: float = Field(0.2, gt=0, lt=1)
    repel: float = Field(0.6, gt=0, lt=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    momentum: float = Field(0.99, ge=0, lt=1)  # of the moving average
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)  # 0 for Cityscapes; the codebook has none
    clip: float = Field(0.0, ge=0)  # of the contrast's gradients; 0: 0.1 for the MLP head, 2 for TR
    probe_start: Literal["random", "kmeans"] = "random"  # of the codes: few images leave most random centers idle
    center: bool = False  # features less their mean: some backbones' all point one way
    least_stride: int = Field(8, ge=1)  # finer features are averaged to cells of so many pixels first
    flip_average: bool = True  # when serving
    centroids: Literal["probe", "kmeans"] = "probe"  # kmeans: the pipeline clusters the codes afterwards


class Cause(Method[CauseConfig]):
    """Frozen backbone, codebook, student head, cluster probe; exported is the head's moving average."""

    thresholds: Tensor

    Config = CauseConfig
    temperature: ClassVar[float] = 3.0

    def __init__(self, config: CauseConfig, run: Run) -> None:
        super().__init__(config, run)
        with seeded(run.recipe.seed):
            self.network = frozen_network(
                run.recipe.backbone, self._head, flip_average=config.flip_average, least_stride=config.least_stride
            )
            assert isinstance(self.network.backbone, TokenBackbone)  # for least_stride is no None
            self.backbone = self.network.backbone
            self.codebook = nn.Parameter(torch.empty(config.concepts, self.backbone.channels))
            self.projection = nn.Conv2d(config.code_dim, config.projection_dim, 1)
            self.probe = ClusterProbe(run.recipe.clusters.count, config.code_dim)
            for rows in (self.codebook, self.probe.centers):
                nn.init.uniform_(rows, -1 / len(rows), 1 / len(rows))
        self.mean_projection = copy.deepcopy(self.projection).requires_grad_(False)
        self.student = copy.deepcopy(self.network.head)
        self.network.requires_grad_(False)
        self.bank = ConceptBank(config.concepts, config.projection_dim, config.bank) if config.bank else None
        self.register_buffer("thresholds", torch.tensor([config.positive, config.negative]))
        self._check_size()
        self.to(run.device)
        self.train()

    def train(self, mode: bool = True) -> "Cause":
        """What is exported never leaves eval mode: the backbone is frozen, the head's average no network of its own."""
        super().train(mode)
        self.network.eval()
        return self

    def _head(self, backbone: Backbone) -> ProjectionHead | CodebookDecoder:
        config, channels = self.config, backbone.channels
        if config.head == "mlp":
            return ProjectionHead(channels, config.code_dim)
        side = self.run.recipe.input.train_size // backbone.stride
        return CodebookDecoder(channels, config.code_dim, (side, side), concepts=config.concepts, hidden=config.hidden)

    def _check_size(self) -> None:
        size, most = self.run.recipe.input.size, getattr(self.student, "max_tokens", None)
        if most is not None and input_spec(self.network, size).max_side_px < size:
            fits = math.isqrt(most) * self.backbone.stride
            raise TesseraError(
                f"images of {size} pixels make {(size // self.backbone.stride) ** 2} tokens and the TR head takes"
                f" {most}: set input.size to at most {fits // 32 * 32}, cause.least_stride higher, or cause.head to mlp"
            )

    def prepare(self) -> None:
        """Features, from disk where they are there, and their mean."""
        options, begun = self._feature_options(), self.backbone.center.clone()  # of the weights of --init
        self.backbone.center.zero_()  # what is kept on disk is what it is taken off
        self.features = open_features(self.network, options, self.run)
        self.backbone.center.copy_(begun)
        side = self.features.maps.shape[-1]
        if side < self.config.cell:
            raise TesseraError(
                f"{side} × {side} tokens have no cell of {self.config.cell}: lower cause.cell or raise input.train_size"
            )
        if self.config.center:
            self.backbone.center.copy_(self._mean())

    def _feature_options(self) -> FeatureOptions:
        return FeatureOptions(self.config.five_crop, self.config.precision)

    def work(self) -> list[Work]:
        """The features."""
        return [stand_ins.features_work(self.network.backbone, self._feature_options(), self.run)]

    def stand_in(self) -> None:
        """Features of the right shape."""
        self.features = stand_ins.features(self.network.backbone, self._feature_options(), self.run)

    def stages(self) -> list[Stage]:
        """Codebook, contrast, probe."""
        config = self.config
        per_epoch = math.ceil(len(self.features) / config.batch_size)
        steps = [
            config.steps or max(epochs * per_epoch, least)
            for epochs, least in zip(_EPOCHS[config.head], _LEAST_STEPS, strict=True)
        ]
        head = [*self.student.parameters(), *self.projection.parameters()]
        groups: list[dict[str, object]] = [
            {"params": [self.codebook], "lr": config.lr},
            {"params": head, "lr": config.lr, "weight_decay": config.weight_decay},
            {"params": list(self.probe.parameters()), "lr": config.lr, "weight_decay": config.weight_decay},
        ]
        begin = partial(self._begin_probe, groups[2], math.ceil(steps[2] / per_epoch))
        return [
            Stage("codebook", steps[0], [groups[0]], partial(self._batches, 0), self._codebook_loss),
            Stage(
                "contrast",
                steps[1],
                [groups[1]],
                partial(self._batches, 1),
                self._contrast_loss,
                before_epoch=self._use_codebook,
                after_step=self._follow,
                clip=config.clip or _CLIP[config.head],
            ),
            Stage(
                "probe",
                steps[2],
                [groups[2]],
                partial(self._batches, 2),
                self._probe_loss,
                before_epoch=begin,
                remedy="cause.center=true",
            ),
        ]

    def centroids(self) -> Tensor | None:
        """The probe's centers, float32 [K, D] at length 1; None when the codes are to be clustered instead."""
        return self.probe.centroids() if self.config.centroids == "probe" else None

    def current_centroids(self) -> Tensor:
        """The probe's."""
        return self.probe.centroids()

    def _batches(self, stage: int, epoch: int) -> Iterator[Batch]:
        """Every crop once, in an order that seed, stage and epoch decide.

        crop  int64 [B];  seed  of everything the step draws
        """
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, stage, epoch))
        order = torch.randperm(len(self.features), generator=generator)
        for i, crop in enumerate(torch.split(order, self.config.batch_size)):
            yield {"crop": crop, "seed": mixed(self.run.recipe.seed, stage, epoch, i)}

    def _codebook_loss(self, batch: Batch) -> dict[str, Tensor]:
        share = distributed.share(len(batch["crop"]))
        tokens = flat(self._thinner(batch)(self._maps(batch)))[share.rows]
        loss = modularity_loss(tokens, self.codebook, self.config.temperature)
        return {"modularity": share.portion() * loss}

    def _use_codebook(self, epoch: int) -> None:
        """The contrast begins: heads get the codebook as it is now, and pairs their thresholds."""
        if epoch:
            return
        for head in (self.student, self.network.head):
            if isinstance(head, CodebookDecoder):
                head.codebook.copy_(self.codebook.detach())
        if self.config.thresholds == "auto":
            positive, negative = self._thresholds()
            self.thresholds.copy_(torch.tensor([positive, negative]))
            said = f"attract over {positive:.3f}, repel under {negative:.3f}"
            say(self.run.console, f"thresholds read off the concepts: {said}")

    def _contrast_loss(self, batch: Batch) -> dict[str, Tensor]:
        config, maps, thinned = self.config, self._maps(batch), self._thinner(batch)
        share = distributed.share(len(maps))
        code = self._thinned_code(self.student, maps, thinned, partial(self._dropout, share))
        student = flat(self.projection(code))
        with torch.no_grad():
            mean = self._thinned_code(self.network.head, maps, thinned)
            teacher, tokens = share.gather(flat(self.mean_projection(mean))), flat(thinned(maps))
        positive, negative = self.thresholds.tolist()
        loss = concept_contrast(
            student,
            teacher,
            tokens,
            self.codebook.detach(),
            self.bank,
            temperature=config.contrast_temperature,
            positive=positive,
            negative=negative,
            rows=share.rows,
        )
        self._seen = tokens, teacher, batch["seed"]
        return {"contrast": loss}

    def _follow(self) -> None:
        """After a step: the bank gets half of its projections, and the moving averages move."""
        tokens, teacher, seed = self._seen
        if self.bank is not None:
            ids, _ = quantize(tokens, self.codebook.detach())
            self.bank.add(ids, teacher, torch.Generator().manual_seed(mixed(seed, 1)))
        ema_update(self.network.head, self.student, self.config.momentum)
        ema_update(self.mean_projection, self.projection, self.config.momentum)

    def _begin_probe(self, group: dict[str, object], epochs: int, epoch: int) -> None:
        """An epoch of the probe: its rate halves every two of the published epochs, however many ours are."""
        if epoch == 0 and self.bank is not None:
            self.bank.clear()
        if epoch == 0 and self.config.probe_start == "kmeans":
            self._start_probe()
        published = _EPOCHS[self.config.head][2]
        group["lr"] = self.config.lr * 0.5 ** (published * epoch // epochs // _HALVED_EVERY)

    def _probe_loss(self, batch: Batch) -> dict[str, Tensor]:
        code, share = self._code(batch), distributed.share(len(batch["crop"]))
        with torch.no_grad():
            labels = self.probe(code).argmax(1)
            used = labels.flatten().bincount(minlength=len(self.probe.centers))
            entropy = torch.special.entr(used / used.sum()).sum() / math.log(len(used))
        loss = modularity_loss(flat(code)[share.rows], self.probe.centers, self.config.temperature)
        return {"modularity": share.portion() * loss, "log/usage_entropy": entropy, **signs(code, labels)}

    @torch.no_grad()
    def _start_probe(self) -> None:
        """Centers from k-means of codes of up to 1024 crops, as long as the random ones were."""
        seed = mixed(self.run.recipe.seed, -3)
        order = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(seed))[:_CODED_CROPS]
        codes = [
            flat(self._code({"crop": crop, "seed": mixed(seed, i)})).flatten(0, 1)
            for i, crop in enumerate(torch.split(order, self.config.batch_size))
        ]
        centers = self.probe.centers
        found, _ = kmeans(torch.cat(codes), len(centers), seed=self.run.recipe.seed)
        centers.copy_(found * centers.norm(dim=1).mean())

    @torch.no_grad()
    def _code(self, batch: Batch) -> Tensor:
        """What the exported head says to the picked tokens: [B, D, h // cell, w // cell]."""
        own = self._thinned_code(self.network.head, self._maps(batch), self._thinner(batch))
        return distributed.share(len(batch["crop"])).gather(own)

    def _thinned_code(self, head: nn.Module, maps: Tensor, thinned: Thinner, *dropout: object) -> Tensor:
        """A head's answer for the picked tokens of this process's share of a batch.

        Attention needs the others of an image as well, and is thinned after it.
        """
        rows = distributed.share(len(maps)).rows
        own = maps[rows]
        with precision.autocast(self.run.recipe.compute.precision, self.run.device):
            code: Tensor = (
                thinned(head(own, *dropout), rows) if self.config.head == "tr" else head(thinned(own, rows), *dropout)
            )
        return code.float()

    def _dropout(self, share: distributed.Share, x: Tensor) -> Tensor:
        """Drawn for the whole batch, whoever has which of its rows."""
        if not share.divided:
            return F.dropout(x, self.config.dropout)
        one = torch.empty_like(x[0])  # in the same order of memory, in which it is drawn
        strides = (one.numel(), *one.stride())
        ones = torch.empty_strided((share.count, *one.shape), strides, dtype=x.dtype, device=x.device).fill_(1)
        return x * F.dropout(ones, self.config.dropout)[share.rows]

    def _maps(self, batch: Batch) -> Tensor:
        """Features of the batch's crops, centered: float32 [B, C, h, w]."""
        maps = self.features.batch(batch["crop"].tolist(), self.run.device)
        return maps - self.backbone.center[:, None, None]

    def _thinner(self, batch: Batch) -> Thinner:
        """Maps [B, C, h, w] of all crops, or of some rows → the same few random tokens of each, [B, C, h // cell, …].

        In place of one without data comes any other of the image that holds some.
        """
        cell, side, device = self.config.cell, self.features.maps.shape[-1], self.run.device
        generator = torch.Generator().manual_seed(batch["seed"])
        picks = draw_picks(len(batch["crop"]), side, cell, generator)
        at = places(picks.to(device).view(len(batch["crop"]), -1), side, cell)
        valid = self.features.valid_cells(batch["crop"].tolist(), device)
        if valid is not None:
            valid = valid.flatten(1)
            at = torch.where(valid.gather(1, at), at, validity.draw(valid, at.shape[1], generator))

        def thinned(maps: Tensor, rows: slice = slice(None)) -> Tensor:
            few = take(flat(maps), at[rows])
            return few.transpose(1, 2).reshape(*maps.shape[:2], side // cell, side // cell)

        return thinned

    def _mean(self) -> Tensor:
        """Mean over all crops of each one's mean over the cells that hold data: float32 [C]."""
        return self.features.center()

    def _thresholds(self) -> tuple[float, float]:
        """Cosines of concepts over which `attract` of the pairs of tokens lie, and under which `repel` of them."""
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, -1))
        crops = torch.randperm(len(self.features), generator=generator)[:_SAMPLED_CROPS]
        batch = {"crop": crops, "seed": mixed(self.run.recipe.seed, -2)}
        tokens = flat(self._thinner(batch)(self._maps(batch))).flatten(0, 1)
        ids, _ = quantize(tokens, self.codebook.detach())
        count = ids.bincount(minlength=len(self.codebook)).double()
        unit = F.normalize(self.codebook.detach(), dim=1)
        alike, order = (unit @ unit.T).flatten().sort()
        share = (count[:, None] * count).flatten()[order].cumsum(0) / count.sum() ** 2
        at = torch.searchsorted(share, torch.tensor([1 - self.config.attract, self.config.repel]).to(share))
        positive, negative = alike[at.clamp(max=len(alike) - 1)].tolist()
        return positive, min(positive, negative)


def flat(maps: Tensor) -> Tensor:
    """Maps [B, C, h, w] as tokens [B, h · w, C]."""
    return maps.flatten(2).transpose(1, 2)


METHOD = Cause
