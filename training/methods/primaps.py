"""PriMaPs-EM: class prototypes for frozen features, fitted to masks that the features fall apart into.

Knows nothing of how an image is decoded or a bundle written. Masks are made once (training/features/mask_proposals.py)
and kept beside the features. Two stages: `kmeans` moves the first principal directions towards the clusters of single
features; `em` has a teacher, the student's moving average, label the pixels, gives every mask the class that most of
its pixels have, and teaches these to the student, which sees the image in another light. There is no head: what is
exported is the backbone alone, and the teacher's prototypes. With `--init RUN` of a finished STEGO or CAUSE-MLP run the
prototypes are of that run's code, and begin at its centers instead of `kmeans`.

Where paper and published code disagree, the defaults follow the code: a prototype has a length that is learned, classes
are told by plain products, the teacher's memory grows with its age. Its script keeps the checkpoint that scores best on
the labels of val; here no label is read, and the last step counts. One slip is not copied: light is changed on pixels,
there on normalized ones, which are then cut off at 0 and 1. Ours: the teacher reads the stored
features of the image as it is, and the mirrored student's answer is turned back, so that a step runs the backbone once
and not twice; least numbers of steps, for folders where an epoch has one; codes are served at length 1, so that margins
mean what they mean of other methods; and for folders `views = "stored"`, where the student reads the stored features
too, no step runs the backbone, and the masks alone teach; `label_stride`; and `center`.

Source: Hahn et al., Boosting Unsupervised Semantic Segmentation with Principal Mask Proposals (arXiv:2404.16818).
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.assign import Assignment
from models.nets.heads import ProjectionHead
from models.nets.tokens import TokenBackbone
from models.types import Array
from training import distributed
from training.clustering.principal import principal_directions
from training.config import precision
from training.config.recipe import Section
from training.config.run import Run
from training.config.work import Work
from training.data.color_jitter import Photometric, color_jitter
from training.data.prefetch import prefetch
from training.features import stand_ins
from training.features.frozen import frozen_network
from training.features.mask_proposals import NO_MASK, THRESHOLD, open_masks
from training.features.row_file import RowFile
from training.features.store import FeatureOptions, open_features, thumbnails
from training.losses.collapse import signs
from training.losses.concepts import ema_update
from training.losses.mask_votes import confidence_weighted, majority
from training.losses.probes import ClusterProbe
from training.methods.base import Method
from training.trainer import initial
from training.trainer.seeds import mixed, seeded
from training.trainer.stage import Batch, Stage

_EPOCHS = {"kmeans": 2, "em": 50}
_LEAST_STEPS = {"kmeans": 100, "em": 300}  # thirty of the teacher's: its memory is fifty
_BLUR_SIGMA = (0.1, 2.0)  # pixels, of every view
_JITTER = 0.1  # brightness, contrast, saturation: factors 1 ± this; hue: share of the color circle, either way
_JITTERED, _GRAY = 0.15, 0.05  # how often, never both
_ANOTHERS = ("network.", "probe.centers")  # what is taken of a run of another method


class PrimapsConfig(Section):
    """The table [primaps]; the published values."""

    precision: Literal["float16", "float32"] = "float16"  # of the features on disk
    threshold: float = Field(THRESHOLD, gt=0, lt=1)  # of a mask, as a share of the largest cosine with its seed
    # photometric: the student sees the image in another light, perhaps mirrored, and every step runs the backbone;
    # stored: it sees the stored features, and no step does
    views: Literal["photometric", "stored"] = "photometric"
    batch_size: int = Field(32, ge=1)
    pca_batches: int = Field(92, ge=1)  # whose features the prototypes begin with
    kmeans_steps: int = Field(0, ge=0)  # 0: 2 epochs, at least 100 steps
    steps: int = Field(0, ge=0)  # of em; 0: 50 epochs, at least 300 steps
    label_stride: int = Field(1, ge=1)  # one of so many pixels a side is labelled and learned; 1: all of them
    # finer features are averaged to cells of so many pixels: a CNN's at stride 4 cost four times a ViT's; 0: all
    least_stride: int = Field(0, ge=0)
    center: bool = False  # features less their mean: where all point one way, an image falls into two or three masks
    kmeans_lr: float = Field(5e-3, gt=0)
    lr: float = Field(5e-3, gt=0)
    gamma: float = Field(2.0, ge=0)  # of the weight (1 − mean confidence) ** gamma of a class
    momentum: float = Field(0.98, ge=0, lt=1)  # of the teacher
    teach_every: int = Field(10, ge=1)  # steps between two moves of the teacher
    flip_average: bool = True  # when serving


class Prototypes(nn.Module):
    """K directions with a length each: features are told apart by their products with them."""

    def __init__(self, k: int, dim: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(k, dim))
        self.lengths = nn.Parameter(torch.ones(k))

    def forward(self, code: Tensor) -> Tensor:
        """Products float [B, K, h, w] of every place of a code [B, D, h, w]."""
        return F.conv2d(code, self.rows()[:, :, None, None])

    def rows(self) -> Tensor:
        """float32 [K, D], each as long as it has learned to be."""
        return self.lengths[:, None] * F.normalize(self.directions, dim=1)

    @torch.no_grad()
    def begin(self, directions: Tensor) -> None:
        """From directions [K, D], at length 1."""
        self.directions.copy_(directions)
        self.lengths.fill_(1)


class Primaps(Method[PrimapsConfig]):
    """Frozen backbone, prototypes by k-means, student and teacher."""

    taught: Tensor

    Config = PrimapsConfig
    assignment: ClassVar[Assignment] = "dot"

    def __init__(self, config: PrimapsConfig, run: Run) -> None:
        super().__init__(config, run)
        self.begun: Literal["nowhere", "centers", "prototypes"] = "nowhere"
        with seeded(run.recipe.seed):
            self.network = frozen_network(
                run.recipe.backbone,
                lambda _: nn.Identity(),
                flip_average=config.flip_average,
                least_stride=config.least_stride or (1 if config.center else None),
            )
            self.network.normalize = True
            self._make_prototypes(self.network.backbone.channels)
        self.register_buffer("taught", torch.zeros((), dtype=torch.int64))  # steps of em
        self.to(run.device)
        self.train()

    def _make_prototypes(self, dim: int) -> None:
        k = self.run.recipe.clusters.count
        self.probe, self.student, self.teacher = ClusterProbe(k, dim), Prototypes(k, dim), Prototypes(k, dim)
        self.teacher.requires_grad_(False)

    def train(self, mode: bool = True) -> "Primaps":
        """The prototypes train; network and head are frozen and never leave eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def begin(self, weights: dict[str, Tensor], source: str) -> None:
        """As of an earlier run of its own; or network and centers of a finished run with a head, as STEGO's.

        Raises UsageError where backbone, stride or K are others.
        """
        own = "student.directions" in weights
        if (linear := weights.get("network.head.linear.weight")) is not None:
            head = ProjectionHead(linear.shape[1], len(linear), nonlinear="network.head.mlp.0.weight" in weights)
            self.network.head = head.requires_grad_(False)
            self._make_prototypes(len(linear))
            self.to(self.run.device)
            self.train()
        if own:
            initial.load(self, weights, source)
        else:
            state = self.state_dict().items()
            mine = {name: value for name, value in state if value.ndim and not name.startswith(_ANOTHERS)}
            taken = {name: value for name, value in weights.items() if name.startswith(_ANOTHERS)}
            initial.load(self, mine | taken, source)
        self.begun = "prototypes" if own else "centers"

    def prepare(self) -> None:
        """Features and their mean, crops and masks, from disk where they are there."""
        options, side = FeatureOptions(precision=self.config.precision), self.run.recipe.input.train_size
        center = self._center()
        begun = None if center is None else center.clone()
        if center is not None:  # what is kept on disk is what it is taken off
            center.zero_()
        self.features = open_features(self.network, options, self.run)
        if center is not None and begun is not None:
            computed = self.config.center and self.begun == "nowhere"
            center.copy_(self.features.center() if computed else begun)
        self.pixels: RowFile | Array = thumbnails(side, options, self.run)
        assert isinstance(self.pixels, RowFile)
        around = center.cpu().numpy() if center is not None and center.any() else None
        self.masks: RowFile | Array = open_masks(
            self.features, self.pixels, self.run, threshold=self.config.threshold, center=around
        )
        self.train()

    def _center(self) -> Tensor | None:
        """float32 [C], what the network takes off its features; None: it takes nothing off."""
        backbone = self.network.backbone
        return backbone.center if isinstance(backbone, TokenBackbone) else None

    def work(self) -> list[Work]:
        """Features and masks, with the crops that they are cut of."""
        count, pixels = len(self.run.images), self.run.recipe.input.train_size**2
        options = FeatureOptions(precision=self.config.precision)
        return [
            stand_ins.features_work(self.network.backbone, options, self.run),
            Work("masks", count, "masks", disk_bytes=count * pixels * (3 + 1)),
        ]

    def stand_in(self) -> None:
        """Features, crops and masks of the right shape."""
        options, side = FeatureOptions(precision=self.config.precision), self.run.recipe.input.train_size
        self.features = stand_ins.features(self.network.backbone, options, self.run)
        count, ids = len(self.features), np.arange(side) * 4 // side
        self.pixels = np.broadcast_to(np.full((side, side, 3), 128, np.uint8), (count, side, side, 3))
        self.masks = np.broadcast_to((4 * ids[:, None] + ids).astype(np.uint8), (count, side, side))

    def stages(self) -> list[Stage]:
        """k-means, unless the prototypes begin with what a run has learned; then EM."""
        config, per_epoch = self.config, math.ceil(len(self.features) / self.config.batch_size)
        asked = {"kmeans": config.kmeans_steps, "em": config.steps}
        steps = {name: asked[name] or max(epochs * per_epoch, _LEAST_STEPS[name]) for name, epochs in _EPOCHS.items()}
        probe = [{"params": list(self.probe.parameters()), "lr": config.kmeans_lr}]
        student = [{"params": list(self.student.parameters()), "lr": config.lr}]
        kmeans = Stage(
            "kmeans", steps["kmeans"], probe, partial(self._batches, 0), self._kmeans_loss, self._begin_kmeans
        )
        views = self._views if config.views == "photometric" else partial(self._batches, 1)
        em = Stage(
            "em", steps["em"], student, views, self._em_loss, self._begin_em, self._follow, remedy="primaps.gamma=4"
        )
        return [kmeans, em] if self.begun == "nowhere" else [em]

    def centroids(self) -> Tensor:
        """The teacher's prototypes, float32 [K, D], of their own lengths."""
        return self.teacher.rows().detach()

    def current_centroids(self) -> Tensor:
        """The same; while k-means runs, its centers."""
        return self.centroids() if self.taught else self.probe.centroids()

    def _batches(self, stage: int, epoch: int) -> Iterator[Batch]:
        """Every crop once, in an order that seed, stage and epoch decide: crop int64 [B]."""
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, stage, epoch))
        order = torch.randperm(len(self.features), generator=generator)
        for crop in torch.split(order, self.config.batch_size):
            yield {"crop": crop}

    def _views(self, epoch: int) -> Iterator[Batch]:
        """The same, with a view of each of this process's share of the crops.

        view     uint8 [b, S, S, 3], in another light, some of them mirrored
        mirrored bool [b], which
        """
        batches = [batch["crop"] for batch in self._batches(1, epoch)]
        own = [crop[distributed.share(len(crop)).rows] for crop in batches]
        seen = prefetch(partial(self._view, epoch), torch.cat(own).tolist(), self.run.recipe.workers)
        for crop, some in zip(batches, own, strict=True):
            views, mirrored = zip(*islice(seen, len(some)), strict=True)
            yield {"crop": crop, "view": torch.from_numpy(np.stack(views)), "mirrored": torch.tensor(mirrored)}

    def _view(self, epoch: int, crop: int) -> tuple[Array, bool]:
        rng = np.random.default_rng([self.run.recipe.seed % 2**32, epoch, crop])
        chance, mirrored, sigma = rng.uniform(), bool(rng.uniform() < 0.5), rng.uniform(*_BLUR_SIGMA)
        bright, contrast, saturation, hue = rng.uniform(-_JITTER, _JITTER, 4)
        light = Photometric(gray=_JITTERED <= chance < _JITTERED + _GRAY, blur=sigma)
        if chance < _JITTERED:
            light = Photometric(1 + bright, 1 + contrast, 1 + saturation, hue, blur=sigma)
        (image,) = self.pixels[self.features.rows([crop])]
        seen = color_jitter(image, light)
        return (seen[:, ::-1] if mirrored else seen), mirrored

    @torch.no_grad()
    def _begin_kmeans(self, epoch: int) -> None:
        """The centers are the first principal directions of some batches' features."""
        if epoch == 0:
            some = islice(self._batches(0, 0), self.config.pca_batches)
            self.probe.centers.copy_(principal_directions(map(self._points, some), len(self.probe.centers)))

    def _points(self, batch: Batch) -> Tensor:
        """Codes of a batch's places that hold data: float [n, D]."""
        code, valid = self._code(batch["crop"]), self._valid(batch["crop"])
        flat = code.movedim(1, -1)
        return flat.flatten(0, 2) if valid is None else flat[valid]

    def _kmeans_loss(self, batch: Batch) -> dict[str, Tensor]:
        own = batch["crop"][distributed.share(len(batch["crop"])).rows]
        code, valid = self._code(own), self._valid(own)
        inside = code[:, 0].numel() if valid is None else int(valid.sum())
        portion = distributed.portion(torch.tensor(float(inside), device=code.device))
        labels = self.probe(code).argmax(1)
        return {"cosine": portion * self.probe.loss(code, valid=valid), **signs(code, labels, valid)}

    @torch.no_grad()
    def _begin_em(self, epoch: int) -> None:
        """Student and teacher begin where k-means has come."""
        if epoch == 0 and self.begun != "prototypes":
            self.student.begin(self.probe.centers)
            self.teacher.begin(self.probe.centers)

    def _em_loss(self, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        own = batch["crop"][distributed.share(len(batch["crop"])).rows]
        code, valid = self._code(own), self._valid(own)
        half, step = config.label_stride // 2, config.label_stride
        masks = self.masks[self.features.rows(own.numpy())][:, half::step, half::step]
        ids = torch.from_numpy(masks.astype(np.int64)).to(code.device)
        upsampled = partial(F.interpolate, size=ids.shape[1:], mode="bilinear", align_corners=False)
        inside = None
        if valid is not None:  # what lies between cells with and without data is of neither
            inside = upsampled(valid[:, None].float())[:, 0] > 1 - 1e-6
            ids = torch.where(inside, ids, NO_MASK)
        with torch.no_grad():
            found = self.teacher(code)
            labels = majority(upsampled(found).argmax(1), ids, found.shape[1])
        scores = upsampled(self.student(self._seen(batch) if "view" in batch else code))
        loss = confidence_weighted(scores, labels, config.gamma, inside)
        agreed = (scores.argmax(1) == labels)[ids != NO_MASK].float()
        return {
            "cross_entropy": loss,
            "log/agreement": agreed.sum() / max(1, len(agreed)),
            **signs(code, found.argmax(1), valid),
        }

    def _follow(self) -> None:
        """After a step: now and then the teacher moves towards the student, the further the younger it is."""
        self.taught += 1
        moves, due = divmod(int(self.taught), self.config.teach_every)
        if not due:
            with torch.no_grad():
                ema_update(self.teacher, self.student, min(self.config.momentum, 1 - 1 / moves))

    @torch.no_grad()
    def _code(self, crops: Tensor) -> Tensor:
        """Codes of some crops: float32 [b, D, h, w]."""
        maps = self.features.batch(crops.tolist(), self.run.device)
        if (center := self._center()) is not None:
            maps = maps - center[:, None, None]
        with precision.autocast(self.run.recipe.compute.precision, self.run.device):
            code: Tensor = self.network.head(maps)
        return code.float()

    def _valid(self, crops: Tensor) -> Tensor | None:
        return self.features.valid_cells(crops.tolist(), self.run.device)

    @torch.no_grad()
    def _seen(self, batch: Batch) -> Tensor:
        """Codes of a batch's views, turned back: float32 [b, D, h, w]."""
        pixels = batch["view"].to(self.run.device).permute(0, 3, 1, 2).float()
        with precision.autocast(self.run.recipe.compute.precision, self.run.device):
            code = self.network.code((pixels - self.network.mean) / self.network.std)
        mirrored = batch["mirrored"].to(code.device)[:, None, None, None]
        return torch.where(mirrored, code.flip(-1), code).float()


METHOD = Primaps
