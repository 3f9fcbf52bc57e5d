"""PiCIE: a network whose codes of a pixel agree between two views, under clusters found on the way.

Knows nothing of files or bundles. Each epoch clusters the codes of both views separately, labels every
pixel of each view by its own clusters, and trains each view's codes towards its own and the other's labels.

`overcluster = 100` is PiCIE+H: a second, finer clustering that only helps. `views = 1` is MDC, the
baseline: one view, a learned classifier.

Where paper and published code disagree, the defaults follow the code, whose numbers were published
(`class_weights`); three slips of it are not copied (training/methods/picie/augment.py; and `batch_norm`: it clusters
under one kind of statistics and labels under another). Ours: batches shrink with the folder so that an epoch has
at least eight steps, k-means sees at most `kmeans_points` pixels at a time, `carry_centroids`.

Source: Cho et al., PiCIE: Unsupervised Semantic Segmentation using Invariance and Equivariance in Clustering
(arXiv:2103.17070).
"""

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.assign import Assignment
from models.files import reserve, write_atomically
from models.nets.build import build_cnn
from models.nets.encoder import Encoder
from models.nets.heads import FPNHead
from models.terminal.progress import Progress, say
from models.types import Array
from training import distributed
from training.clustering.minibatch_kmeans import MiniBatchKMeans
from training.config import precision
from training.config.recipe import Section
from training.config.run import Run
from training.config.work import Work
from training.data import validity
from training.data.label_maps import IGNORED
from training.losses.collapse import signs
from training.methods.base import Method
from training.methods.picie import augment
from training.methods.picie.augment import AugmentSection
from training.methods.picie.losses import ClassWeights, class_weights, cross_entropy, label, level_shares, view_losses
from training.methods.picie.view_loader import Item, ViewLoader, Which
from training.trainer.seeds import seeded
from training.trainer.stage import Batch, Stage

_VIEWS: tuple[Which, ...] = ("first", "second")
_STEPS_PER_EPOCH = 8  # a folder of 50 photos in one batch of 50 would make ten steps in all
_SMALLEST_BATCH = 4
_CALIBRATION_BATCHES = 16
_KEPT_NUMBERS = 2**28  # 1 GB: codes of both views of 150 images of 320 pixels, or of 600 of 160


# all image numbers of a batch, the codes float32 [b, D, h, w] of length 1 of this process's share of them, and which
# of these hold data: bool [b, h, w], None: all
Codes = tuple[list[int], Tensor, Tensor | None]


class PicieConfig(Section):
    """The table [picie]; the published COCO values."""

    code_dim: int = Field(128, ge=2)
    epochs: int = Field(10, ge=1)
    lr: float = Field(1e-4, gt=0)
    batch_size: int = Field(128, ge=2)  # at most an eighth of the images, at least 4
    views: Literal[1, 2] = 2  # 1: MDC
    overcluster: int = Field(0, ge=0, le=255)  # 100: PiCIE+H
    class_weights: ClassWeights = "proportional"  # to the clusters' pixels; counterintuitive, but published
    batch_norm: Literal["consistent", "upstream"] = "consistent"  # upstream clusters in training mode
    carry_centroids: bool = False  # k-means starts from the last epoch's: steadier on few images or from scratch
    cluster_batch: int = Field(256, ge=1)  # images per batch of k-means
    init_batches: int = Field(20, ge=1)
    update_batches: int = Field(1, ge=1)
    kmeans_iterations: int = Field(20, ge=1)
    kmeans_points: int = Field(4_000_000, ge=0)  # pixels of its start, drawn evenly from the images; 0: all
    augment: AugmentSection = AugmentSection()


class Picie(Method[PicieConfig]):
    """CNN, feature pyramid, k-means on the way."""

    kmeans_loss: Tensor

    Config = PicieConfig
    assignment: ClassVar[Assignment] = "dot"
    temperature: ClassVar[float] = 1.0

    def __init__(self, config: PicieConfig, run: Run) -> None:
        super().__init__(config, run)
        self.seed, self.size = run.recipe.seed, run.recipe.input.train_size
        self.ks = [run.recipe.clusters.count, *([config.overcluster] if config.overcluster else [])]
        count = len(run.images)
        batch_size = min(config.batch_size, max(_SMALLEST_BATCH, count // _STEPS_PER_EPOCH), count)
        self.loader = ViewLoader(run, config.augment, batch_size)
        with seeded(self.seed):
            asked = run.recipe.backbone.model_dump()
            backbone = build_cnn(**asked, needed="PiCIE needs a CNN's pyramid of maps", instead="resnet18")
            backbone.neck = None  # of pretraining; PiCIE's head takes its place
            self.network = Encoder(backbone, FPNHead(backbone.pyramid_channels, config.code_dim), normalize=True)
        self.side = self.size // self.network.stride
        for level, k in enumerate(self.ks):
            self.register_buffer(f"means_{level}", torch.zeros(config.views, k, config.code_dim))
            self.register_buffer(f"weights_{level}", torch.ones(config.views, k))
        self.register_buffer("kmeans_loss", torch.zeros(config.views))
        self.classifiers = nn.ModuleList([nn.Linear(config.code_dim, k) for k in self.ks] if config.views == 1 else [])
        self.format = precision.memory_format(run.recipe.compute.precision, run.device)
        self.network.to(memory_format=self.format)
        self.to(run.device)

    def work(self) -> list[Work]:
        """Clustering and labelling before every epoch, and k-means at the end; labels of two epochs on the disk."""
        count, views, cells = len(self.run.images), self.config.views, self.side**2
        passes = self.config.epochs * views * (1 if self._codes_fit() else 2) + 1
        labels = 2 * count * len(self.ks) * views * cells
        held = 4 * count * views * cells * self.config.code_dim if self._codes_fit() else 0
        return [Work("clustering", count * passes, "training size", disk_bytes=labels, memory_bytes=held)]

    def sample(self, stage: Stage) -> Batch:
        """The first batch, with labels that mean nothing."""
        items = next(self.loader.batches(0, "both" if self.config.views == 2 else "first"))
        labels = torch.zeros(len(items), len(self.ks), self.config.views, self.side, self.side, dtype=torch.uint8)
        return {"index": torch.tensor([item.number for item in items]), "items": items, "labels": labels}

    def stages(self) -> list[Stage]:
        """One; every epoch of it begins with clusters and labels."""
        steps = self.config.epochs * len(self.loader.order(0))
        parameters = [*self.network.parameters(), *self.classifiers.parameters()]
        groups = [{"params": parameters, "lr": self.config.lr}]
        published = self.config.class_weights == "proportional"  # which make large clusters larger
        remedy = "picie.class_weights=none" if published else f"picie.lr={self.config.lr / 3:.1g}"
        optimizer = precision.adam(self.run.recipe.compute.precision, self.run.device)
        return [
            Stage(
                "cluster",
                steps,
                groups,
                self._batches,
                self._loss,
                before_epoch=self._cluster,
                optimizer=optimizer,
                remedy=remedy,
            )
        ]

    @torch.no_grad()
    def centroids(self) -> Tensor:
        """float32 [K, D]: k-means of the plain images' codes, as the last thing; lengths are the means' own."""
        init = self.means(0)[0] if self.config.carry_centroids else None
        self.eval()
        (found,), _ = self._kmeans(self.config.epochs, self._codes(self.config.epochs, "plain"), [init])
        if distributed.is_main():
            shutil.rmtree(self._labels_folder(), ignore_errors=True)
        return found

    def current_centroids(self) -> Tensor:
        """This epoch's, of the first view."""
        return self.means(0)[0]

    def means(self, level: int) -> Tensor:
        """Centroids of this epoch: float32 [views, K, D]."""
        return self.get_buffer(f"means_{level}")

    def weights(self, level: int) -> Tensor:
        """Class weights of this epoch: float32 [views, K]."""
        return self.get_buffer(f"weights_{level}")

    @torch.no_grad()
    def _cluster(self, epoch: int) -> None:
        """Clusters and labels of one epoch: means and weights into buffers, label maps into a file."""
        began = time.monotonic()
        if epoch == 0 and self.run.recipe.backbone.weights == "random":
            self._calibrate()
        kept: dict[int, list[Codes]] = {}
        for view in range(self.config.views):
            carried = epoch > 0 and self.config.carry_centroids
            init = [self.means(i)[view].clone() if carried else None for i in range(len(self.ks))]
            self.train(self.config.batch_norm == "upstream")
            codes: Iterable[Codes] = self._codes(epoch, _VIEWS[view])
            if self._codes_fit():
                codes = kept[view] = list(codes)
            found, self.kmeans_loss[view] = self._kmeans(epoch, codes, init)
            for level, means in enumerate(found):
                self.means(level)[view] = means
        self._label(epoch, kept)
        generator = torch.Generator().manual_seed(self.seed * 1000 + epoch)
        for classifier in self.classifiers:  # MDC: cluster ids mean something else now
            for parameter in classifier.parameters():
                drawn = torch.randn(parameter.shape, generator=generator) * 0.01
                parameter.copy_(drawn if parameter.ndim == 2 else torch.zeros_like(parameter))
        self.train()
        fit = ", ".join(f"{loss:.4f}" for loss in self.kmeans_loss.tolist())
        done = f"clustered and labelled in {time.monotonic() - began:.0f} s, mean squared distance {fit}"
        say(self.run.console, f"epoch {epoch + 1} of {self.config.epochs}: {done}")

    def _codes_fit(self) -> bool:
        """Whether one pass over the images can serve clustering and labelling."""
        numbers = len(self.run.images) * self.config.views * self.side**2 * self.config.code_dim
        return self.config.batch_norm == "consistent" and numbers <= _KEPT_NUMBERS

    def _kmeans(self, epoch: int, codes: Iterable[Codes], init: list[Tensor | None]) -> tuple[list[Tensor], float]:
        """Means of one view's codes, for as many levels as `init` has, and the loss of the first."""
        config = self.config
        solvers = [
            MiniBatchKMeans(
                k,
                init_batches=config.init_batches,
                update_batches=config.update_batches,
                iterations=config.kmeans_iterations,
                seed=self.seed * 1000 + epoch,
                init=start,
            )
            for k, start in zip(self.ks, init, strict=False)
        ]
        at_start = min(len(self.run.images), config.init_batches * config.cluster_batch)
        per_image = config.kmeans_points // at_start if config.kmeans_points else self.side**2
        generator = torch.Generator().manual_seed(self.seed * 1000 + epoch)
        waiting: list[Tensor] = []
        for numbers, code, valid in codes:
            for one in _drawn(code, valid, distributed.share(len(numbers)), per_image, generator):
                waiting.append(one)
                if len(waiting) == config.cluster_batch:
                    self._feed(solvers, waiting)
        if waiting:
            self._feed(solvers, waiting)
        return [solver.centroids() for solver in solvers], solvers[0].loss

    @staticmethod
    def _feed(solvers: list[MiniBatchKMeans], waiting: list[Tensor]) -> None:
        points = torch.cat(waiting)
        waiting.clear()
        if not len(points):
            return  # not a pixel of these images holds data
        for solver in solvers:
            solver.add(points)

    def _label(self, epoch: int, kept: Mapping[int, Iterable[Codes]]) -> None:
        """Writes the nearest cluster of every pixel of every view, or IGNORED: uint8 [n, levels, views, h, w]."""
        views = self.config.views
        shape = (len(self.run.images), len(self.ks), views, self.side, self.side)
        counts = [torch.zeros(views, k, dtype=torch.float64) for k in self.ks]
        self.eval()

        def label_all(labels: Array | None) -> None:
            for view in range(views):
                for indices, code, valid in kept.get(view) or self._codes(epoch, _VIEWS[view]):
                    for level, k in enumerate(self.ks):
                        own = label(code, self.means(level)[view]).cpu()
                        if valid is not None:
                            own[~valid] = IGNORED
                        found = distributed.share(len(indices)).gather(own)
                        if labels is not None:
                            labels[indices, level, view] = found.numpy().astype(np.uint8)
                        counts[level][view] += torch.bincount(found[found != IGNORED], minlength=k)

        def fill(file: IO[bytes]) -> None:
            labels = np.lib.format.open_memmap(file.name, mode="w+", dtype=np.uint8, shape=shape)
            reserve(Path(file.name))
            label_all(labels)
            labels.flush()

        if distributed.is_main():
            write_atomically(self._labels_path(epoch), fill)
        else:
            label_all(None)
        distributed.barrier()
        for level, count in enumerate(counts):
            self.weights(level).copy_(class_weights(count, self.config.class_weights))

    def _labels_folder(self) -> Path:
        return self.run.cache / "labels"

    def _labels_path(self, epoch: int) -> Path:
        """Named by the clusters as well: a resumed run finds its own labels and nobody else's."""
        seen = hashlib.sha256()
        for level in range(len(self.ks)):
            seen.update(self.means(level).cpu().numpy().tobytes())
        self._labels_folder().mkdir(parents=True, exist_ok=True)
        return self._labels_folder() / f"{epoch:04d}-{seen.hexdigest()[:16]}.npy"

    def _calibrate(self) -> None:
        """Running statistics for a network that has none yet: random weights come with 0 and 1."""
        self.train()
        for _ in islice(self._codes(0, "plain"), _CALIBRATION_BATCHES):
            pass

    def _codes(self, epoch: int, which: Which) -> Iterator[Codes]:
        """Codes of one view, in the mode the network is in when each batch is asked for."""
        grid = self.side, self.side
        with Progress(self.run.console, f"codes, {which} view", len(self.run.images)) as bar:
            for numbers, items in zip(self.loader.order(epoch), self.loader.batches(epoch, which), strict=True):
                valid = validity.stacked([validity.cells(item.valid, grid) for item in items], grid)
                yield numbers, self._coded(items, [which == "second"])[0], valid
                bar.advance(len(numbers))

    def _coded(self, items: list[Item], cropped: Sequence[bool]) -> list[Tensor]:
        """Codes of so many views; a cropped one is cropped here, after the network: that is the equivariance.

        All of them in one stretch of bfloat16, for which weights are then converted once.
        """
        pixels = [torch.stack([item.views[view] for item in items]).to(self.run.device) for view in range(len(cropped))]
        mean, std = self.network.mean, self.network.std
        with precision.autocast(self.run.recipe.compute.precision, self.run.device):
            codes = [
                self.network.code(((one - mean) / std).contiguous(memory_format=self.format)).float() for one in pixels
            ]
        crops = [item.crop for item in items]
        cut = [augment.resized_crop(c, crops, self.side) if so else c for c, so in zip(codes, cropped, strict=True)]
        return [F.normalize(code, dim=1) for code in cut]

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """index int64 [B]; of this process's share items; labels uint8 [b, levels, views, h, w], IGNORED: no data."""
        path = self._labels_path(epoch)
        if distributed.from_main(lambda: not path.exists()):
            say(self.run.console, f"{path.name} is gone from the cache: labelling epoch {epoch} anew")
            with torch.no_grad():
                self._label(epoch, {})
        labels = np.load(path, mmap_mode="r")
        self.train()
        loaded = self.loader.batches(epoch, "both" if self.config.views == 2 else "first")
        for numbers, items in zip(self.loader.order(epoch), loaded, strict=True):
            own = torch.from_numpy(labels[[item.number for item in items]])
            yield {"index": torch.tensor(numbers), "items": items, "labels": own}

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        labels = batch["labels"].to(self.run.device).long()
        codes = self._coded(batch["items"], [view == 1 for view in range(self.config.views)])
        losses: dict[str, Tensor] = {}
        for level, share in enumerate(level_shares(self.ks)):
            truth, weights = labels[:, level].unbind(1), self.weights(level)
            if self.config.views == 1:
                logits = self.classifiers[level](codes[0].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                found = {"classify": cross_entropy(logits, truth[0], weights[0])}
            else:
                within, across = view_losses(codes, truth, self.means(level), weights)
                found = {"within": within / 2, "across": across / 2}
            for name, value in found.items():
                losses[name] = losses.get(name, torch.zeros_like(value)) + share * value
        losses |= signs(codes[0], labels[:, 0, 0], labels[:, 0, 0] != IGNORED)
        return losses | {f"log/kmeans_{view + 1}": loss for view, loss in enumerate(self.kmeans_loss)}


def _drawn(
    code: Tensor, valid: Tensor | None, share: distributed.Share, most: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """At most so many random pixels with data of every image of a batch: float [n, D] each.

    code, valid  of this process's share of them
    """
    pixels = code.flatten(2).transpose(1, 2)
    inside = torch.full((len(pixels),), pixels.shape[1]) if valid is None else valid.flatten(1).sum(1)
    counts = share.gather(inside).tolist()
    picks = [torch.randperm(count, generator=generator)[:most] if most < count else None for count in counts]
    own = []
    for i, (one, some) in enumerate(zip(pixels, picks[share.rows], strict=True)):
        one = one if valid is None else one[valid[i].flatten().to(one.device)]
        own.append(one if some is None else one[some.to(one.device)])
    if not share.divided:
        return iter(own)
    padded = pixels.new_zeros(len(own), min(most, pixels.shape[1]), pixels.shape[2])
    for row, one in zip(padded, own, strict=True):
        row[: len(one)] = one
    return (row[: min(most, count)] for row, count in zip(share.gather(padded), counts, strict=True))


METHOD = Picie
