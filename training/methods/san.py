"""SAN: a CNN's pixels and a ViT's semantics, trained from scratch until they match.

Knows nothing of files or bundles. Of the paper only the abstract was at hand, so this is our construction after
its description, not a reproduction; none of our figures are the paper's. What it says: low-level pixel features
are matched to semantic-level ones; a CNN encodes pixels, a ViT semantics, and attention (SEAT) aligns pixel
embeddings with semantics of the whole batch; reconstruction and orthogonal semantics keep it from collapsing.

Ours, in one step: two crops of each image under different light pass through `models/nets/semantics.py`. The
images' semantics are averaged over the batch; a pixel's assignment is a softmax over its cosines with them.
Regions of even color (training/data/regions.py) tie the views together and give a small sign the weight of a large
sky: a region's target is what its mean embedding in the other view is closest to, balanced over the batch, and
every pixel of it is aligned with that. From the assigned semantics alone a small decoder must tell the image's
colors and rows. A moving average of the batch's semantics is what is served as centroids.

Source: Semantic Attention Network (arXiv:2211.14513), abstract.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.nets.build import build_cnn
from models.nets.encoder import positions
from models.nets.semantics import HEAD_DIM, SanEncoder, SemanticEncoder
from training import distributed
from training.config.recipe import Section
from training.config.run import Run
from training.config.work import Work
from training.data.augment import ViewOptions, crop, draw_crops, planes, relight
from training.data.preprocess import four_by_three
from training.data.region_views import region_maps, shown_regions
from training.data.regions import RegionOptions
from training.features import stand_ins
from training.features.region_codes import pool
from training.losses.collapse import signs
from training.losses.semantics import alignment, balanced, batch_semantics, opponent_colors, orthogonality
from training.methods.base import Method
from training.trainer.schedule import warmed_up
from training.trainer.seeds import mixed, seeded
from training.trainer.stage import Batch, Stage

_LEVELS = 3  # of the CNN's pyramid: strides 4, 8, 16
_MOMENTUM = 0.95  # of the served semantics: the mean of the last twenty batches or so
_WARM_UP = 20  # steps


class SanConfig(Section):
    """The table [san]. Every value is ours: the paper's were not available."""

    code_dim: int = Field(128, ge=HEAD_DIM, multiple_of=HEAD_DIM)
    depth: int = Field(2, ge=1)  # layers of the semantic encoder
    # 0: 7 epochs, at least 240 steps and at most 6000
    steps: int = Field(0, ge=0)
    batch_size: int = Field(8, ge=2)
    lr: float = Field(1e-3, gt=0)
    temperature: float = Field(0.1, gt=0)  # of assignments
    target_temperature: float = Field(0.05, gt=0)
    balance: float = Field(1.0, ge=0, le=1)  # 1: every semantic is wanted by as many regions; 0: may collapse
    weight_orthogonal: float = Field(1.0, ge=0)
    weight_reconstruct: float = Field(1.0, ge=0)
    region_scales: tuple[float, ...] = Field((100.0, 250.0, 500.0), min_length=1)
    min_cells: int = Field(4, ge=1)  # of 4×4 pixels that a region needs in both views
    max_images: int = Field(5000, ge=4)  # drawn evenly from more: they are kept on disk at one size
    area: tuple[float, float] = (0.3, 1.0)  # of the image that a view shows
    jitter: float = Field(0.4, ge=0, lt=1)


class San(Method[SanConfig]):
    """Pixel encoder, semantic encoder, SEAT, decoder."""

    network: SanEncoder
    served: Tensor
    step: Tensor

    Config = SanConfig
    temperature: ClassVar[float] = 10.0

    def __init__(self, config: SanConfig, run: Run) -> None:
        super().__init__(config, run)
        k, dim, section = run.recipe.clusters.count, config.code_dim, run.recipe.backbone
        with seeded(run.recipe.seed):
            backbone = build_cnn(
                **section.model_dump(), levels=_LEVELS, dim=dim, needed="SAN's pixel encoder is a CNN",
                instead="resnet10t",
            )  # fmt: skip
            semantics = SemanticEncoder(k, dim, config.depth)
            self.network = SanEncoder(backbone, semantics, dim=dim, temperature=config.temperature)
            self.decoder = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4))
        self.register_buffer("served", F.normalize(semantics.queries.detach()[0], dim=1))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.latest = self.served
        self.views = ViewOptions(
            size=four_by_three(run.recipe.input.train_size),
            area=config.area, aspect=1.2, jitter=config.jitter, gamma=config.jitter, hue=0.05, gray=0.1,
        )  # fmt: skip
        self.to(memory_format=torch.channels_last)
        self.to(run.device)

    def prepare(self) -> None:
        """Images at one size and their regions, from disk where they are there."""
        self.regions = self.run.regions(self._region_options(), most=self.config.max_images)

    def _region_options(self) -> RegionOptions:
        return RegionOptions(size=four_by_three(self.run.recipe.input.size), scales=self.config.region_scales)

    def work(self) -> list[Work]:
        """The regions."""
        return [stand_ins.regions_work(self._region_options(), self.run, self.config.max_images)]

    def stand_in(self) -> None:
        """Regions of the right shape."""
        self.regions = stand_ins.regions(self._region_options(), self.run, self.config.max_images)

    def stages(self) -> list[Stage]:
        """One; its rate climbs for twenty steps and then falls to 0 by half a cosine."""
        per_epoch = len(self._order(0))
        steps = self.config.steps or min(6000, max(240, 7 * per_epoch))
        group: dict[str, Any] = {"params": list(self.parameters()), "lr": self.config.lr / _WARM_UP}

        def after_step() -> None:
            self.served.copy_(F.normalize(_MOMENTUM * self.served + (1 - _MOMENTUM) * self.latest, dim=1))
            self.step += 1
            group["lr"] = warmed_up(self.config.lr, int(self.step), steps, _WARM_UP)

        return [
            Stage("match", steps, [group], self._batches, self._loss, after_step=after_step, remedy="san.balance=1")
        ]

    def centroids(self) -> Tensor:
        """float32 [K, D], rows of length 1: the moving average of the batches' semantics."""
        return self.served.clone()

    current_centroids = centroids

    def _generator(self, epoch: int, purpose: int) -> torch.Generator:
        """Unrelated draws for every seed, epoch and purpose."""
        return torch.Generator().manual_seed(mixed(self.run.recipe.seed, epoch, purpose))

    def _order(self, epoch: int) -> list[Tensor]:
        """Image numbers of every batch; what is left over is left out, if there is a whole batch."""
        generator = self._generator(epoch, 0)
        found = torch.split(torch.randperm(len(self.regions), generator=generator), self.config.batch_size)
        return list(found[:-1] if len(found) > 1 and len(found[-1]) < self.config.batch_size else found)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Two views of every image, first views before second ones.

        views   float [2B, 3, H, W], 0..1
        ids     int64 [2B, h, w], regions on the code's grid, -1 where no data is;  count  more than any id
        colors  float [2B, 3, h, w], what was photographed, before its light was changed
        rows    float [2B, 1, h, w], height in the whole image, −1..1
        """
        generator = self._generator(epoch, 1)
        cache, stride = self.regions, self.network.backbone.stride
        grid = (self.views.size[0] // stride, self.views.size[1] // stride)
        for rows in self._order(epoch):
            scale = int(torch.randint(cache.regions.shape[1], (1,), generator=generator))
            images, regions = planes(cache.images[rows.numpy()]), region_maps(cache, rows, scale)
            height = positions(images[:, :, ::stride, ::stride])[:, :1]
            found: dict[str, list[Tensor]] = {"views": [], "ids": [], "colors": [], "rows": []}
            for _ in range(2):
                crops = draw_crops(len(rows), self.views, generator)
                plain = crop(images, crops, self.views.size)
                found["views"].append(relight(plain, self.views, generator))
                found["ids"].append(shown_regions(regions, crops, grid))
                found["colors"].append(F.avg_pool2d(plain, stride))
                found["rows"].append(crop(height, crops, grid))
            yield {name: torch.cat(parts) for name, parts in found.items()} | {"count": int(cache.counts.max())}

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        config, device = self.config, self.run.device
        share = distributed.share(len(batch["views"]))  # of the network's work; the rest every process does whole
        pixels = (255 * batch["views"][share.rows].to(device) - self.network.mean) / self.network.std
        with torch.autocast(device.type, torch.bfloat16):
            code, semantics = self.network.see(pixels.contiguous(memory_format=torch.channels_last))
        code, semantics = share.gather(code.float()), share.gather(semantics.float())
        code, shared = F.normalize(code, dim=1), batch_semantics(semantics)
        self.latest = shared.detach()
        assigned = (torch.einsum("kd,bdhw->bkhw", shared, code) / config.temperature).log_softmax(1)
        ids, dim = batch["ids"].to(device), config.code_dim
        means, cells = pool(torch.cat([code, assigned], dim=1), ids, batch["count"])
        half = len(ids) // 2
        seen = (cells[:half] >= config.min_cells) & (cells[half:] >= config.min_cells)
        first, second = means[:half][seen], means[half:][seen]
        wrong = self._reconstruction(assigned.exp(), shared, batch)
        losses = {
            "orthogonal": config.weight_orthogonal * orthogonality(shared),
            "reconstruct": config.weight_reconstruct
            * pool(wrong, ids, batch["count"])[0].sum()
            / (cells > 0).sum().clamp(min=1),
        }
        if len(first) < 2:
            return losses  # views that share no region: rare, and no reason to stop
        units = F.normalize(torch.cat([first[:, :dim], second[:, :dim]]), dim=1)
        targets = balanced(
            units.detach() @ shared.detach().T, temperature=config.target_temperature, strength=config.balance
        )
        wanted = targets[: len(first)], targets[len(first) :]
        losses["align"] = alignment((first[:, dim:], second[:, dim:]), wanted)
        with torch.no_grad():
            losses["log/agreement"] = (wanted[0].argmax(1) == wanted[1].argmax(1)).float().mean()
            shares, inside = assigned.exp(), ids >= 0
            usage = shares.mean((0, 2, 3)) if inside.all() else shares.movedim(1, -1)[inside].mean(0)
            losses |= signs(code, assigned.argmax(1))
            losses["log/entropy"] = -(usage * usage.log()).sum() / math.log(len(usage))
        return losses

    def _reconstruction(self, assigned: Tensor, shared: Tensor, batch: Batch) -> Tensor:
        """Mean squared error [2B, 1, h, w] of colors and rows, decoded from the assigned semantics alone."""
        given = torch.einsum("bkhw,kd->bhwd", assigned, shared) * math.sqrt(shared.shape[1])
        answer = self.decoder(given).movedim(-1, 1)
        colors, rows = batch["colors"].to(assigned.device), batch["rows"].to(assigned.device)
        truth = torch.cat([opponent_colors(colors), rows], dim=1)
        wrong: Tensor = (answer - truth).square().mean(1, keepdim=True)
        return wrong


METHOD = San
