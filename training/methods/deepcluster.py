"""DeepCluster on regions: the network learns to name the clusters that k-means finds in its own codes, round by round.

Knows nothing of files or bundles. The whole network is trained. A round begins with the codes of all regions of even
color (training/data/regions.py): several k-means, each with a seed of its own, give every region a cluster; then the
network learns to tell, for every cell of changed views, which clusters its region is in, one cosine classifier for each
k-means. What only one k-means says pulls in no direction for long. The classifiers are thrown away; what is left is a
code in which the next round's clusters are cut better. The pipeline makes the clusters of it.

Ours: regions in place of images, each with the same weight; the place of a region beside its code in k-means; and the
start, from weights that tell regions apart at all: `training/pretrain.py`'s, where there are none from elsewhere.

Source: Caron et al., Deep Clustering for Unsupervised Learning of Visual Features (arXiv:1807.05520); several
clusterings at once: DeepCluster-v2, in the appendix of arXiv:2006.09882.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.nets.build import build_cnn
from models.nets.encoder import Encoder
from training import distributed
from training.clustering.kmeans import kmeans
from training.config.recipe import Section
from training.config.run import Run
from training.config.work import Work
from training.data import validity
from training.data.augment import ViewOptions, pixels, planes, view
from training.data.preprocess import four_by_three
from training.data.region_views import region_maps, shown_regions
from training.data.regions import RegionOptions
from training.features import stand_ins
from training.features.region_codes import place, region_codes
from training.losses.collapse import signs
from training.methods.base import Method
from training.trainer.schedule import warmed_up
from training.trainer.seeds import mixed, seeded
from training.trainer.stage import Batch, Stage

_LEVELS = 3  # of the CNN's pyramid: strides 4, 8, 16
_WARM_UP = 20  # steps of a round


class DeepClusterConfig(Section):
    """The table [deepcluster]. Every value is ours."""

    code_dim: int = Field(128, ge=2)  # of a backbone that brings no neck of its own
    rounds: int = Field(2, ge=1)
    # of each round; 0: 10 epochs, at least 100 and at most 3000 steps
    steps: int = Field(0, ge=0)
    batch_size: int = Field(12, ge=2)
    lr: float = Field(2e-3, gt=0)
    scale: float = Field(10.0, gt=0)  # what cosines are multiplied by before the softmax
    clusterings: int = Field(5, ge=1)
    clusters: int = Field(66, ge=2, le=4096)  # of each; more than are wanted in the end, so that nothing is lumped
    position: float = Field(0.0, ge=0)  # weight of a region's place in k-means
    region_scale: float = Field(100.0, gt=0)
    max_images: int = Field(5000, ge=4)  # drawn evenly from more: they are kept on disk at one size
    area: tuple[float, float] = (0.5, 1.0)  # of the image that a view shows
    jitter: float = Field(0.3, ge=0, lt=1)


class DeepCluster(Method[DeepClusterConfig]):
    """Backbone with its neck, and one classifier for each clustering.

    labels  int16 [n, R, clusterings]  cluster of every region of this round, -1 where there is none
    """

    labels: Tensor
    step: Tensor

    Config = DeepClusterConfig
    temperature = 10.0

    def __init__(self, config: DeepClusterConfig, run: Run) -> None:
        super().__init__(config, run)
        section = run.recipe.backbone
        with seeded(run.recipe.seed):
            backbone = build_cnn(
                **section.model_dump(), levels=_LEVELS, dim=config.code_dim, needed="DeepCluster trains a CNN",
                instead="resnet10t",
            )  # fmt: skip
            self.network = Encoder(backbone, nn.Identity())
            heads = torch.empty(config.clusterings, config.clusters, backbone.channels)
            self.classifiers = nn.Parameter(F.normalize(torch.randn(heads.shape), dim=2))
        size = four_by_three(run.recipe.input.size, backbone.multiple)
        # Views a fifth smaller each way than the image: at their mean area of 0.75 nothing changes its size much.
        smaller = (max(32, size[0] * 4 // 5 // 16 * 16), max(32, size[1] * 4 // 5 // 16 * 16))
        self.size, self.views = size, ViewOptions(
            size=smaller, area=config.area, aspect=1.15, jitter=config.jitter, hue=0.05, gray=0.1, blur=0.2
        )  # fmt: skip
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int16))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.to(memory_format=torch.channels_last)
        self.to(run.device)

    def prepare(self) -> None:
        """Images at one size and their regions, from disk where they are there."""
        self.regions = self.run.regions(self._region_options(), most=self.config.max_images)
        self._make_room()

    def _region_options(self) -> RegionOptions:
        return RegionOptions(size=self.size, scales=(self.config.region_scale,))

    def _make_room(self) -> None:
        shape = (len(self.regions), int(self.regions.counts.max()), self.config.clusterings)
        self.labels = torch.full(shape, -1, dtype=torch.int16)

    def work(self) -> list[Work]:
        """The regions, and a pass over them for each round."""
        count = min(len(self.run.images), self.config.max_images)
        coded = Work("codes of regions", count * self.config.rounds, "regions")
        return [stand_ins.regions_work(self._region_options(), self.run, self.config.max_images), coded]

    def stand_in(self) -> None:
        """Regions of the right shape, in one cluster."""
        self.regions = stand_ins.regions(self._region_options(), self.run, self.config.max_images)
        self._make_room()
        self.labels.zero_()

    def stages(self) -> list[Stage]:
        """One a round; its rate climbs for twenty steps and then falls to 0 by half a cosine."""
        per_epoch = max(1, len(self.regions) // self.config.batch_size)
        steps = self.config.steps or min(3000, max(100, 10 * per_epoch))
        return [self._round(number, steps) for number in range(self.config.rounds)]

    def _round(self, number: int, steps: int) -> Stage:
        group: dict[str, Any] = {"params": list(self.parameters()), "lr": self.config.lr / _WARM_UP}

        def begin(epoch: int) -> None:
            if epoch == 0:
                self._cluster(number)

        def after_step() -> None:
            self.step += 1
            group["lr"] = warmed_up(self.config.lr, int(self.step) - number * steps, steps, _WARM_UP)

        return Stage(
            f"round-{number + 1}", steps, [group], partial(self._batches, number), self._loss, begin, after_step,
            remedy="deepcluster.lr=1e-3",
        )  # fmt: skip

    @torch.no_grad()
    def _cluster(self, number: int) -> None:
        """The clusters that the network's codes of all regions make now; the classifiers begin anew."""
        self.network.eval()
        found = region_codes(lambda pixels: self.network(pixels.to(self.run.device)), self.regions)
        self.network.train()
        points = place(found, self.config.position, found.codes.mean(0))
        k = min(self.config.clusters, max(2, len(points) // 2))
        self.labels.fill_(-1)
        for i in range(self.config.clusterings):
            seed = mixed(self.run.recipe.seed, number, i)
            self.labels[found.image, found.region, i] = kmeans(points, k, seed=seed, restarts=1)[1].to(self.labels)
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, number, -1))
        fresh = F.normalize(torch.randn(self.classifiers.shape, generator=generator), dim=2)
        self.classifiers.data.copy_(fresh)

    def _batches(self, number: int, epoch: int) -> Iterator[Batch]:
        """Changed views of every image, and which regions they show.

        pixels  uint8 [B, H, W, 3];  images  int64 [B];  ids  int64 [B, h, w] regions, -1 where no data is
        """
        cache, views = self.regions, self.views
        generator = torch.Generator().manual_seed(mixed(self.run.recipe.seed, number, epoch))
        order = torch.randperm(len(cache), generator=generator)
        stride = self.network.stride
        grid = (views.size[0] // stride, views.size[1] // stride)
        size = self.config.batch_size
        for rows in torch.split(order, size)[: max(1, len(order) // size)]:
            seen, crops = view(planes(cache.images[rows.numpy()]), views, generator)
            ids = shown_regions(region_maps(cache, rows, 0), crops, grid)
            yield {"pixels": pixels(seen), "images": rows, "ids": ids}

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        device, rows = self.run.device, distributed.share(len(batch["images"])).rows
        ids = batch["ids"][rows]
        wanted = self.labels[batch["images"][rows][:, None, None], ids.clamp(min=0)].long().to(device)
        wanted = wanted.masked_fill((ids < 0).to(device)[..., None], -1)  # [B, h, w, clusterings]
        with torch.autocast(device.type, torch.bfloat16):
            code = self.network(batch["pixels"][rows].to(device))
        code = F.normalize(code.float(), dim=1)
        known = wanted[..., 0] >= 0
        weight = known.float().sum().clamp(min=1)
        total, hits = code.new_zeros(()), code.new_zeros(())
        for i, classifier in enumerate(F.normalize(self.classifiers, dim=2)):
            scores = torch.einsum("kd,bdhw->bkhw", classifier, code)
            total = total + F.cross_entropy(
                self.config.scale * scores, wanted[..., i], ignore_index=-1, reduction="sum"
            )
            hits = hits + validity.mean((scores.argmax(1) == wanted[..., i]).float().detach(), known)
        count = len(self.classifiers)
        return {
            "naming": distributed.portion(weight) * total / weight / count,
            "log/agreement": hits / count,
            **signs(code.detach(), scores.argmax(1), known),
        }


METHOD = DeepCluster
