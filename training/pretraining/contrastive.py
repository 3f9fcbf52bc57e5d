"""A backbone from nothing: regions of one image, seen twice, are told from all others.

Knows nothing of methods or bundles.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import TesseraError
from models.nets.backbone import MEAN, STD, build
from training.clustering.kmeans import kmeans
from training.data.augment import ViewOptions, crop, draw_crops, relight
from training.data.regions import RegionCache, RegionOptions
from training.features.region_codes import pool, region_codes
from training.progress import Progress


class PretrainError(TesseraError):
    """Pretraining cannot start or go on as asked."""


class PretrainOptions(BaseModel):
    """Everything that decides the weights, apart from the images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        mean = torch.tensor(MEAN, device=images.device)[:, None, None]
        std = torch.tensor(STD, device=images.device)[:, None, None]
        pixels = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        code: Tensor = self.backbone(pixels)
        return code


def contrast(left: Tensor, right: Tensor, groups: Tensor | None = None, *, temperature: float = 0.1) -> Tensor:
    """Loss that is low where left[i] resembles right[i] and no other row.

    left, right  float [n, D]   the same n regions in two views
    groups       int64 [n]      regions of one group are not pushed apart; negative: in no group

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
    ids: Tensor  # int64 [2B, h, w] on the code's grid
    count: int  # more than any id
    images: Tensor  # int64 [B] rows of the cache
    scales: Tensor  # int64 [B] scale drawn for each

    def to(self, device: torch.device) -> RegionBatch:
        """The views and ids where the network is."""
        return replace(self, views=self.views.to(device), ids=self.ids.to(device))


def draw(cache: RegionCache, options: PretrainOptions, step: int) -> RegionBatch:
    """The batch of one step: a function of (seed, step), so a resumed run goes on as if never stopped."""
    size = options.batch_size
    n = len(cache)
    start = step * size
    rows: list[int] = []
    while len(rows) < size:  # epochs are permutations; a batch may reach into the next one
        epoch, at = divmod(start + len(rows), n)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(options.seed * 1_000_003 + epoch))
        rows += order[at : at + size - len(rows)].tolist()
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    scales = torch.randint(cache.regions.shape[1], (size,), generator=generator)
    images = torch.from_numpy(cache.images[rows]).movedim(-1, 1).float() / 255
    regions = torch.from_numpy(cache.regions[rows, scales.numpy()].astype("float32"))[:, None]
    grid = (options.views.size[0] // 4, options.views.size[1] // 4)
    views, ids = [], []
    for _ in range(2):
        crops = draw_crops(size, options.views, generator)
        views.append(relight(crop(images, crops, options.views.size), options.views, generator))
        ids.append(crop(regions, crops, grid, nearest=True)[:, 0].long())
    return RegionBatch(torch.cat(views), torch.cat(ids), int(cache.counts.max()), torch.tensor(rows), scales)


def loss(network: Network, batch: RegionBatch, groups: Tensor | None, options: PretrainOptions) -> Tensor:
    """Contrastive loss of one batch; groups int64 [n, S, R] names each region's cluster, -1 for none."""
    device = batch.views.device
    with torch.autocast(device.type, torch.bfloat16):
        code = network(batch.views)
    means, cells = pool(code.float(), batch.ids, batch.count)
    half = len(batch.images)
    seen = (cells[:half] >= options.min_cells) & (cells[half:] >= options.min_cells)
    generator = torch.Generator().manual_seed(int(batch.images.sum()) + int(cells.sum().item()))
    rank = torch.rand(seen.shape, generator=generator).to(device).masked_fill(~seen, -1)
    # At most so many regions of one image: a photo of gravel would otherwise be half the batch.
    best, picked = rank.topk(min(options.regions_per_image, batch.count), dim=1)
    image, slot = (best >= 0).nonzero(as_tuple=True)
    region = picked[image, slot]
    if len(image) < 2:
        nothing: Tensor = 0 * code.float().sum()
        return nothing  # views that share no region: rare, and no reason to stop
    both = network.projection(torch.cat([means[:half][image, region], means[half:][image, region]]))
    kind = None
    if groups is not None:
        row = image.cpu()
        kind = groups[batch.images[row], batch.scales[row], region.cpu()].to(device)
    left, right = both.chunk(2)
    return contrast(left, right, kind, temperature=options.temperature)


def group(network: Network, cache: RegionCache, options: PretrainOptions, seed: int) -> Tensor:
    """Cluster of every region by what the network has learned: int64 [n, S, R], -1 where there is none."""
    network.eval()

    def code(pixels: Tensor) -> Tensor:
        device = next(network.parameters()).device
        with torch.autocast(device.type, torch.bfloat16):
            answer: Tensor = network(pixels.to(device).movedim(-1, 1).float() / 255)
        return answer

    found = region_codes(code, cache)
    network.train()
    _, cluster = kmeans(found.codes, options.clusters, seed=seed, restarts=1)
    groups = torch.full((*cache.regions.shape[:2], int(cache.counts.max())), -1)
    groups[found.image, found.scale, found.region] = cluster
    return groups


def rate(step: int, options: PretrainOptions) -> float:
    """Learning rate of a step: a short climb, then half a cosine down to 0, within each round."""
    per_round = math.ceil(options.steps / options.rounds)
    done = (step % per_round + 1) / per_round
    if done < options.warmup:
        return options.lr * done / options.warmup
    return options.lr * 0.5 * (1 + math.cos(math.pi * (done - options.warmup) / (1 - options.warmup)))


def train(
    cache: RegionCache,
    options: PretrainOptions,
    device: torch.device,
    console: Console,
    *,
    resume: Path | None = None,
    save_every: int = 200,
) -> tuple[Network, list[float]]:
    """The trained network and the loss of every step.

    resume   file that is written every `save_every` steps and read at the start: an interrupted run goes on
             from there, to the same weights.
    """
    torch.manual_seed(options.seed)
    network = Network(options).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), options.lr, weight_decay=options.weight_decay)
    history: list[float] = []
    groups: Tensor | None = None
    identity = _identity(cache, options)
    if resume is not None and resume.exists():
        state = torch.load(resume, map_location=device, weights_only=True)
        if state["identity"] != identity:
            raise PretrainError(f"{resume} is of other images or options: delete it, or give another --out")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history, groups = state["history"], state["groups"]
    per_round = math.ceil(options.steps / options.rounds)
    with Progress(console, "pretraining", options.steps, done=len(history)) as progress:
        for step in range(len(history), options.steps):
            if step and step % per_round == 0:
                groups = group(network, cache, options, options.seed + step // per_round)
            for setting in optimizer.param_groups:
                setting["lr"] = rate(step, options)
            value = loss(network, draw(cache, options, step).to(device), groups, options)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            history.append(value.item())
            progress.advance(note=f"loss {history[-1]:.3f}")
            if resume is not None and (step + 1) % save_every == 0:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                _replace(resume, state | {"identity": identity, "history": history, "groups": groups})
    return network.eval(), history


def save(network: Network, options: PretrainOptions, history: Sequence[float], images: int, out: Path) -> None:
    """The file that `models.nets.backbone.build` reads: weights of backbone and neck, and what made them."""
    tensors = network.backbone.state_dict()
    facts = {
        "backbone": options.backbone,
        "options": options.model_dump_json(),
        "images": str(images),
        "loss": f"{sum(history[-50:]) / len(history[-50:]):.4f}",
        "licence": "trained from random weights on the folders given",
    }
    draft = out.with_name(out.name + ".draft")
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, draft, metadata=facts)
    draft.replace(out)


def _identity(cache: RegionCache, options: PretrainOptions) -> str:
    names = [str(path) for path in cache.paths]
    return hashlib.sha256(json.dumps([names, options.model_dump_json()]).encode()).hexdigest()


def _replace(path: Path, state: dict[str, Any]) -> None:
    draft = path.with_name(path.name + ".draft")
    torch.save(state, draft)
    draft.replace(path)  # in one move: a kill leaves the old file or the new one, never half
