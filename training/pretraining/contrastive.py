"""A backbone from nothing: regions of one image, seen twice, are told from all others.

Knows nothing of methods, bundles or of how a stage is run.

Two random views of every image pass through the network; the codes of a region in both views are drawn together and
those of other regions pushed away. Later rounds cluster all regions with what was learned so far and no longer push
apart two regions of one cluster: walls of two houses may be alike.

Source: Hénaff et al., Efficient Visual Pretraining with Contrastive Detection (arXiv:2103.10957).
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import save as safetensors
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from models.files import write_atomically
from models.nets.build import build
from models.nets.weights import NORMALIZATION
from models.terminal.progress import say
from training import distributed
from training.clustering.kmeans import kmeans
from training.config.recipe import Section
from training.data.augment import ViewOptions, crop, draw_crops, relight
from training.data.regions import RegionCache, RegionOptions, signed
from training.features.region_codes import pool, region_codes
from training.trainer import batch_norm, checkpoint, loop
from training.trainer.loop import Workspace
from training.trainer.seeds import seeded
from training.trainer.stage import Batch, Stage


class PretrainOptions(Section):
    """Everything that decides the weights, apart from the images."""

    backbone: str = "resnet10t"
    levels: int = Field(default=3, ge=1, le=4, description="maps of the backbone that are used, from stride 4 on")
    dim: int = Field(default=128, ge=8, description="channels of the neck that merges them at stride 4")
    steps: int = Field(default=450, ge=1)
    rounds: int = Field(default=2, ge=1)
    batch_size: int = Field(default=32, ge=2)
    regions_per_image: int = Field(default=12, ge=1)
    min_cells: int = Field(default=8, ge=1, description="of the stride-4 grid, that a region needs in both views")
    clusters: int = Field(default=12, ge=2, description="of all regions, between rounds")
    temperature: float = Field(default=0.1, gt=0)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    views: ViewOptions = ViewOptions()
    regions: RegionOptions = RegionOptions()

    @property
    def most_images(self) -> int:
        """How many images its steps draw, if each is drawn once: more are not cut into regions."""
        return self.steps * self.batch_size


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


def contrast(left: Tensor, right: Tensor, groups: Tensor | None = None, *, temperature: float = 0.1) -> Tensor:
    """Loss that is low where left[i] resembles right[i] and no other row.

    left, right  float [n, D]   the same n regions in two views
    groups       int [n]        regions of one group are not pushed apart; negative: in no group

    Source: InfoNCE (arXiv:1807.03748), both ways.
    """
    logits = F.normalize(left, dim=1) @ F.normalize(right, dim=1).T / temperature
    if groups is not None:
        alike = (groups[:, None] == groups[None]) & (groups[:, None] >= 0)
        alike.fill_diagonal_(False)
        logits = logits.masked_fill(alike, -math.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@dataclass(frozen=True)
class RegionBatch:
    """Two views of a batch, with the regions that both of them show."""

    views: Tensor  # float [2B, 3, H, W], 0..1: first views, then second
    ids: Tensor  # int64 [2B, h, w] on the code's grid, -1 where no data is
    count: int  # more than any id
    images: Tensor  # int64 [B] rows of the cache
    scales: Tensor  # int64 [B] scale drawn for each


def images_of(step: int, count: int, options: PretrainOptions) -> list[int]:
    """Which of `count` images a step sees: every pass over them is a permutation; a batch may reach into the next."""
    size, rows = options.batch_size, list[int]()
    while len(rows) < size:
        turn, at = divmod(step * size + len(rows), count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(options.seed * 1_000_003 + turn))
        rows += order[at : at + size - len(rows)].tolist()
    return rows


def draw(cache: RegionCache, options: PretrainOptions, step: int) -> RegionBatch:
    """The batch of one step: a function of (seed, step), so a resumed run goes on as if never stopped."""
    size, rows = options.batch_size, images_of(step, len(cache), options)
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    scales = torch.randint(cache.regions.shape[1], (size,), generator=generator)
    images = torch.from_numpy(cache.images[rows]).movedim(-1, 1).float() / 255
    regions = torch.from_numpy(signed(cache.regions[rows, scales.numpy()]).astype("float32"))[:, None]
    grid = (options.views.size[0] // 4, options.views.size[1] // 4)
    views, ids = [], []
    for _ in range(2):
        crops = draw_crops(size, options.views, generator)
        views.append(relight(crop(images, crops, options.views.size), options.views, generator))
        ids.append(crop(regions, crops, grid, nearest=True)[:, 0].long())
    return RegionBatch(torch.cat(views), torch.cat(ids), int(cache.counts.max()), torch.tensor(rows), scales)


class Pretraining(nn.Module):
    """The network under training, and whatever else a checkpoint needs to go on to the same weights.

    groups  int32 [n, S, R]   cluster of every region of the cache, -1 where there is none, or none yet
    losses  float32 [steps]   of every step so far
    """

    groups: Tensor
    losses: Tensor

    def __init__(self, cache: RegionCache, options: PretrainOptions, device: torch.device) -> None:
        super().__init__()
        self.cache, self.options, self.device = cache, options, device
        with seeded(options.seed):
            self.network = Network(options).to(device).to(memory_format=torch.channels_last)
        slots = (*cache.regions.shape[:2], int(cache.counts.max()))
        self.register_buffer("groups", torch.full(slots, -1, dtype=torch.int32))
        self.register_buffer("losses", torch.zeros(options.steps))

    def stage(self) -> Stage:
        """One, whose epochs are the rounds."""
        options = self.options
        per_round = math.ceil(options.steps / options.rounds)
        group = {"params": list(self.network.parameters()), "lr": options.lr, "weight_decay": options.weight_decay}

        def batches(epoch: int) -> Iterator[Batch]:
            for step in range(epoch * per_round, min((epoch + 1) * per_round, options.steps)):
                yield {"step": step, "images": torch.tensor(images_of(step, len(self.cache), options))}

        def loss(batch: Batch) -> dict[str, Tensor]:
            step = batch["step"]
            group["lr"] = rate(step, options)
            value = self.loss(draw(self.cache, options, step))
            self.losses[step] = value.detach()
            return {"contrast": value}

        return Stage("pretraining", options.steps, [group], batches, loss, self.regroup, optimizer=AdamW)

    def loss(self, batch: RegionBatch) -> Tensor:
        """Contrastive loss of one batch: a scalar."""
        options = self.options
        share = distributed.share(len(batch.views))
        with torch.autocast(self.device.type, torch.bfloat16):
            own = self.network(batch.views[share.rows].to(self.device))
        code = share.gather(own.float())
        means, cells = pool(code, batch.ids.to(self.device), batch.count)
        half = len(batch.images)
        seen = (cells[:half] >= options.min_cells) & (cells[half:] >= options.min_cells)
        generator = torch.Generator().manual_seed(int(batch.images.sum()) + int(cells.sum().item()))
        rank = torch.rand(seen.shape, generator=generator).to(self.device).masked_fill(~seen, -1)
        # At most so many regions of one image: a photo of gravel would otherwise be half the batch.
        best, picked = rank.topk(min(options.regions_per_image, batch.count), dim=1)
        image, slot = (best >= 0).nonzero(as_tuple=True)
        region = picked[image, slot]
        if len(image) < 2:
            nothing: Tensor = 0 * code.sum()
            return nothing  # views that share no region: rare, and no reason to stop
        both = self.network.projection(torch.cat([means[:half][image, region], means[half:][image, region]]))
        row = image.cpu()
        groups = self.groups[batch.images[row], batch.scales[row], region.cpu()].to(self.device)
        left, right = both.chunk(2)
        return contrast(left, right, groups, temperature=options.temperature)

    @torch.no_grad()
    def regroup(self, epoch: int) -> None:
        """Before every round but the first: clusters all regions by what the network has learned."""
        if epoch == 0:
            return
        self.network.eval()

        def code(pixels: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16):
                answer: Tensor = self.network(pixels.to(self.device).movedim(-1, 1).float() / 255)
            return answer

        found = region_codes(code, self.cache)
        self.network.train()
        _, cluster = kmeans(found.codes, self.options.clusters, seed=self.options.seed + epoch, restarts=1)
        self.groups.fill_(-1)
        self.groups[found.image, found.scale, found.region] = cluster.int()


def rate(step: int, options: PretrainOptions) -> float:
    """Learning rate of a step: a short climb, then half a cosine down to 0, within each round."""
    per_round = math.ceil(options.steps / options.rounds)
    done = (step % per_round + 1) / per_round
    if done < options.warmup:
        return options.lr * done / options.warmup
    return options.lr * 0.5 * (1 + math.cos(math.pi * (done - options.warmup) / (1 - options.warmup)))


def pretrain(cache: RegionCache, options: PretrainOptions, device: torch.device, place: Workspace, out: Path) -> None:
    """Trains on the images and regions of the cache and writes the backbone to `out`; then the checkpoint goes.

    Interrupted, the same call goes on. Raises what `training.trainer.loop.train` raises.
    """
    with distributed.main_first():
        if place.checkpoint.exists() and checkpoint.is_pickle(place.checkpoint):
            say(place.console, f"{place.checkpoint} is of an older version: the pretraining begins anew")
            place.checkpoint.unlink()
    trained = train(cache, options, device, place)
    with distributed.main_first():
        if distributed.is_main():
            save(trained, out)
            place.checkpoint.unlink(missing_ok=True)


def train(cache: RegionCache, options: PretrainOptions, device: torch.device, place: Workspace) -> Pretraining:
    """The network trained on the images and regions of the cache, with the loss of every step."""
    model = Pretraining(cache, options, device)
    batch_norm.synchronize(model)
    loop.train(model, [model.stage()], replace(place, seed=options.seed, identity=_identity(cache, options)))
    return model.eval()


def save(model: Pretraining, out: Path) -> None:
    """The file that `models.nets.backbone.build` reads: weights of backbone and neck, their pixels, what made them."""
    facts = {
        "backbone": model.options.backbone,
        "options": model.options.model_dump_json(exclude_none=True),
        "images": str(len(model.cache)),
        "loss": f"{float(model.losses[-50:].mean()):.4f}",
        NORMALIZATION: model.network.backbone.normalization.model_dump_json(),
        "licence": "trained from random weights on the folders given",
    }
    tensors = {name: value.cpu().contiguous() for name, value in model.network.backbone.state_dict().items()}
    write_atomically(out, lambda file: file.write(safetensors(tensors, facts)))


def _identity(cache: RegionCache, options: PretrainOptions) -> str:
    names = [str(path) for path in cache.paths]
    return hashlib.sha256(json.dumps([names, options.model_dump_json(exclude_none=True)]).encode()).hexdigest()
