"""A backbone from nothing: the same regions in several views of an image, and an objective that brings them together.

Knows nothing of methods, bundles, of what the objectives compute (infonce.py, swav.py, sigreg.py) or of how a stage is
run.

Random views of every image pass through the network, and the codes of a region in all of them to the objective. Where
there is a second round, all regions are clustered before it with what was learned so far, and InfoNCE no longer pushes
apart two regions of one cluster: walls of two houses may be alike.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save as safetensors
from torch import Tensor, nn
from torch.optim import AdamW

from models.files import write_atomically
from models.nets.weights import NORMALIZATION
from models.terminal.progress import say
from training import distributed
from training.clustering.kmeans import kmeans
from training.data.regions import RegionCache
from training.features.region_codes import pool, region_codes
from training.pretraining.infonce import InfoNce
from training.pretraining.network import Network
from training.pretraining.options import PretrainOptions
from training.pretraining.seen_regions import SeenRegions
from training.pretraining.sigreg import Sigreg
from training.pretraining.swav import Swav
from training.pretraining.views import LARGER, RegionBatch, draw, images_of
from training.trainer import batch_norm, checkpoint, loop
from training.trainer.loop import Workspace
from training.trainer.seeds import seeded
from training.trainer.stage import Batch, Stage

Objective = InfoNce | Swav | Sigreg


class Pretraining(nn.Module):
    """The network under training, and whatever else a checkpoint needs to go on to the same weights.

    groups  int32 [n, S, R]   cluster of every region of the cache, -1 where there is none, or none yet
    losses  float32 [steps]   of every step so far

    Its objective's parameters are trained with the network's; only the backbone is kept at the end.
    """

    groups: Tensor
    losses: Tensor

    def __init__(self, cache: RegionCache, options: PretrainOptions, device: torch.device) -> None:
        super().__init__()
        self.cache, self.options, self.device = cache, options, device
        with seeded(options.seed):
            self.network = Network(options).to(device).to(memory_format=torch.channels_last)
            self.objective = _objective(options).to(device)
        slots = (*cache.regions.shape[:2], int(cache.counts.max()))
        self.register_buffer("groups", torch.full(slots, -1, dtype=torch.int32))
        self.register_buffer("losses", torch.zeros(options.steps))

    def stage(self) -> Stage:
        """One, whose epochs are the rounds."""
        options = self.options
        per_round = math.ceil(options.steps / options.rounds)
        trained = [*self.network.parameters(), *self.objective.parameters()]
        group = {"params": trained, "lr": options.lr, "weight_decay": options.weight_decay}

        def batches(epoch: int) -> Iterator[Batch]:
            for step in range(epoch * per_round, min((epoch + 1) * per_round, options.steps)):
                yield {"step": step, "images": torch.tensor(images_of(step, len(self.cache), options))}

        def loss(batch: Batch) -> dict[str, Tensor]:
            step = batch["step"]
            group["lr"] = rate(step, options)
            value = self.loss(draw(self.cache, options, step))
            self.losses[step] = value.detach()
            return {options.objective: value}

        return Stage(
            "pretraining",
            options.steps,
            [group],
            batches,
            loss,
            self.regroup,
            self.objective.after_step,
            optimizer=AdamW,
        )

    def loss(self, batch: RegionBatch) -> Tensor:
        """The objective's loss of one batch: a scalar."""
        regions = self._regions(batch)
        if regions.codes.shape[1] < 2:
            nothing: Tensor = 0 * regions.codes.sum()
            return nothing  # views that share no region: rare, and no reason to stop
        value: Tensor = self.objective(regions)
        return value

    def _regions(self, batch: RegionBatch) -> SeenRegions:
        """Of every image some of the regions that a larger view and another one show."""
        options = self.options
        sizes = [(batch.views, batch.ids), (batch.small_views, batch.small_ids)]
        pooled = [self._pooled(views, ids, batch) for views, ids in sizes if len(views)]
        means = torch.cat([mean for mean, _ in pooled])  # [V, B, R, D]
        cells = torch.cat([cell for _, cell in pooled])  # [V, B, R]
        seen = cells >= options.min_cells
        candidates = seen[:LARGER].any(0) & (seen.sum(0) > 1)
        generator = torch.Generator().manual_seed(int(batch.images.sum()) + int(cells[:LARGER].sum().item()))
        rank = torch.rand(candidates.shape, generator=generator).to(self.device).masked_fill(~candidates, -1)
        # At most so many regions of one image: a photo of gravel would otherwise be half the batch.
        best, picked = rank.topk(min(options.regions_per_image, batch.count), dim=1)
        image, slot = (best >= 0).nonzero(as_tuple=True)
        region = picked[image, slot]
        shown = seen[:, image, region]
        rows = means[:, image, region][shown]
        codes = means.new_zeros(*shown.shape, options.dim)
        codes[shown] = self.network.projection(rows) if len(image) > 1 else 0 * rows
        row = image.cpu()
        groups = self.groups[batch.images[row], batch.scales[row], region.cpu()].to(self.device)
        return SeenRegions(codes, shown, groups, LARGER, batch.draw)

    def _pooled(self, views: Tensor, ids: Tensor, batch: RegionBatch) -> tuple[Tensor, Tensor]:
        """Mean codes float [v, B, R, D] and cells float [v, B, R] of the regions in v views of every image."""
        share = distributed.share(len(views))
        with torch.autocast(self.device.type, torch.bfloat16):
            own = self.network(views[share.rows].to(self.device))
        means, cells = pool(share.gather(own.float()), ids.to(self.device), batch.count)
        size = len(batch.images)
        return means.reshape(-1, size, *means.shape[1:]), cells.reshape(-1, size, cells.shape[1])

    @torch.no_grad()
    def regroup(self, epoch: int) -> None:
        """Before every round but the first: clusters all regions by what the network has learned, if InfoNCE asks."""
        if epoch == 0 or self.options.objective != "infonce":
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


def _objective(options: PretrainOptions) -> Objective:
    if options.swav is not None:
        return Swav(options.dim, options.swav, larger=LARGER)
    return Sigreg(options.sigreg) if options.sigreg is not None else InfoNce(options.temperature)


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
