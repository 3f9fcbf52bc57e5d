"""How good pretrained backbones are without labels, and which objective is best at equal time.

    python -m benchmarks.pretraining WEIGHTS [WEIGHTS …] --data ../shared/data/camvid/images/val
    python -m benchmarks.pretraining --camvid ../shared/data/camvid --objective swav --seconds 360 [--name NAME]
        [--options '{"lr": 0.001, "swav": {"prototypes": 128}}'] [--photos DIR]
    python -m benchmarks.pretraining --camvid ../shared/data/camvid --labels

The first prints, for each file, the contrastive loss of the codes and how often the nearest of a batch's regions is the
same region in the other view, of images that the network never saw. The agreement between clusterings cannot rank
backbones (one that has learned nothing agrees with itself); the pretraining's own aim, on images kept out of it, can.

The second trains so many seconds of one core on the train frames of CamVid: a few steps are timed, and as many taken as
fit (OMP_NUM_THREADS=1, and nothing else on the core). It is judged without labels by two shares: regions of val frames
recognized as above, and how alike two drives' clusterings (k-means of region codes, K = 11) divide the regions of the
third, the adjusted Rand index, mean over drives and three seeds. The criterion is the mean of the two. `--photos`: a
folder whose photos are trained on besides.

The third scores what was trained with labels, for information: least squares from a cell's code to its class, learned
on two drives and scored on the third; region k-means with K = 11, matched one to one, and K = 44, many to one.

Weights and regions are kept in runs/pretraining; written is benchmarks/results/pretraining.json.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from benchmarks import machine
from models.nets.build import build
from models.types import Array
from training.clustering.agreement import agreement
from training.clustering.kmeans import kmeans, nearest
from training.data import datasets
from training.data.datasets.camvid import CLASS_NAMES, drive
from training.data.regions import RegionCache, open_regions
from training.evaluation import metrics
from training.features.region_codes import RegionCodes, coarse, pool, region_codes
from training.pretraining.network import Network
from training.pretraining.options import OBJECTIVES, PretrainOptions, of_objective
from training.pretraining.pretraining import Pretraining, save, train
from training.pretraining.views import draw
from training.trainer.loop import Workspace

BATCHES = 12
OPTIONS = PretrainOptions(batch_size=16, seed=123)  # the same views for every file
RESULTS = Path("benchmarks/results/pretraining.json")
KEPT = Path("runs/pretraining")
SCALE = 1  # of the regions that are clustered: 250
SEEDS = (0, 1, 2)
_TIMED = 8  # steps, of which the first two warm up
_RIDGE = 1e-3  # of a column's variance


def network_of(weights: Path) -> Network:
    """The network with the backbone of a file that `training/pretrain.py` wrote, frozen."""
    with safe_open(weights, "pt") as file:
        name = (file.metadata() or {}).get("backbone", OPTIONS.backbone)
    network = Network(OPTIONS)
    network.backbone = build(name, weights)
    return network.eval()


@torch.no_grad()
def recognize(weights: Path, cache: RegionCache) -> tuple[float, float]:
    """(mean contrastive loss, share of regions recognized) over `BATCHES` batches of two views."""
    network = network_of(weights)
    losses, hits = [], []
    for step in range(BATCHES):
        batch = draw(cache, OPTIONS, step)
        means, cells = pool(network(batch.views).float(), batch.ids, batch.count)
        half = len(batch.images)
        image, region = ((cells[:half] >= OPTIONS.min_cells) & (cells[half:] >= OPTIONS.min_cells)).nonzero(
            as_tuple=True
        )
        left, right = (F.normalize(part[image, region], dim=1) for part in (means[:half], means[half:]))
        similarity, same = left @ right.T, torch.arange(len(left))
        losses.append(F.cross_entropy(similarity / OPTIONS.temperature, same))
        hits.append((similarity.argmax(1) == same).float().mean())
    return float(torch.stack(losses).mean()), float(torch.stack(hits).mean())


@dataclass(frozen=True)
class Frames:
    """The train frames as one network codes them.

    cells    float16 [n, h, w, D];  drives  of every frame
    regions  rows of `SCALE`, codes of length 1 after their mean is taken away
    """

    cells: Tensor
    drives: Array
    regions: RegionCodes


def coded(weights: Path, cache: RegionCache) -> Frames:
    """Codes of all frames and of their regions."""
    network, kept = network_of(weights), list[Tensor]()

    def code(pixels: Tensor) -> Tensor:
        answer: Tensor = network(pixels.movedim(-1, 1).float() / 255)
        kept.append(answer.movedim(1, -1).half())
        return answer

    found = region_codes(code, cache).at(SCALE)
    centered = F.normalize(found.codes - found.codes.mean(0), dim=1)
    return Frames(torch.cat(kept), np.array([drive(path) for path in cache.paths]), replace(found, codes=centered))


def across_drives(frames: Frames, k: int = 11) -> float:
    """How alike two drives' clusterings divide the third's regions: 1 the same, 0 as by chance."""
    of = frames.drives[frames.regions.image.numpy()]
    rows = {name: frames.regions.codes[torch.from_numpy(of == name)] for name in np.unique(of)}
    found = []
    for seed in SEEDS:
        centroids = {name: kmeans(codes, k, seed=seed, restarts=1)[0] for name, codes in rows.items()}
        for third in rows:
            first, second = (nearest(rows[third], centroids[name])[1] for name in rows if name != third)
            found.append(agreement(first, second))
    return statistics.fmean(found)


def trained(options: PretrainOptions, cache: RegionCache, seconds: float, out: Path) -> dict[str, Any]:
    """Trains for so many seconds of one core; what it took."""
    stage = Pretraining(cache, options, torch.device("cpu")).stage()
    optimizer = stage.optimizer(list(stage.groups))
    began = time.process_time()
    for count, batch in enumerate(islice(stage.batches(0), _TIMED)):
        if count == 2:
            began = time.process_time()
        optimizer.zero_grad()
        sum(stage.loss(batch).values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        stage.after_step()
    each = (time.process_time() - began) / (_TIMED - 2)
    chosen = options.model_copy(update={"steps": max(_TIMED, math.floor(seconds / each))})
    began = time.process_time()
    place = Workspace(
        out.with_suffix(".partial"),
        out.with_suffix(".log.jsonl"),
        chosen.seed,
        Console(stderr=True),
        "the same command",
    )
    model = train(cache, chosen, torch.device("cpu"), place)
    took = time.process_time() - began
    save(model, out)
    place.checkpoint.unlink(missing_ok=True)
    return {"steps": chosen.steps, "core_seconds": round(took, 1)}


def labels_of(data: Path, cache: RegionCache, grid: tuple[int, int]) -> Array:
    """Classes of the grid's cells, uint8 [n, h, w], of every frame of the cache; 255: none."""
    images = datasets.open("camvid", data, split="train", console=Console(quiet=True))
    at = {path.name: i for i, path in enumerate(images.paths)}
    found = []
    for path in cache.paths:
        labels = images.labels(at[path.name])
        rows = ((np.arange(grid[0]) + 0.5) * labels.shape[0] / grid[0]).astype(int)
        columns = ((np.arange(grid[1]) + 0.5) * labels.shape[1] / grid[1]).astype(int)
        found.append(labels[rows][:, columns])
    return np.stack(found)


def probe(frames: Frames, labels: Array) -> dict[str, Any]:
    """Least squares from cells' codes to classes, each drive by what the other two taught."""
    classes, sums = len(CLASS_NAMES), dict[str, tuple[Tensor, Tensor]]()
    table = np.zeros((classes, classes), np.int64)

    def rows(i: int) -> tuple[Tensor, Array]:
        codes = frames.cells[i].flatten(0, 1).float()
        return torch.cat([codes, torch.ones(len(codes), 1)], dim=1), labels[i].ravel()

    for i, name in enumerate(frames.drives):
        codes, truth = rows(i)
        known = torch.from_numpy(truth < classes)
        target = F.one_hot(torch.from_numpy(truth.astype(np.int64))[known], classes).double()
        codes = codes[known].double()
        left, right = sums.get(name, (torch.zeros(()), torch.zeros(())))
        sums[name] = (left + codes.T @ codes, right + codes.T @ target)
    for third in sums:
        left = torch.stack([part[0] for name, part in sums.items() if name != third]).sum(0)
        right = torch.stack([part[1] for name, part in sums.items() if name != third]).sum(0)
        weight = torch.linalg.solve(left + _RIDGE * torch.diag(left.diagonal()), right).float()
        for i in np.flatnonzero(frames.drives == third):
            codes, truth = rows(int(i))
            table += metrics.confusion((codes @ weight).argmax(1).numpy(), truth, classes, classes)
    scores = metrics.score(table, np.arange(classes))
    return {"miou": round(scores.miou, 4), "accuracy": round(scores.accuracy, 4)}


def clustered(frames: Frames, labels: Array, cache: RegionCache) -> dict[str, Any]:
    """Region k-means of all drives, mean over the seeds: K = 11 one to one, K = 44 many to one."""
    ids = coarse(cache.regions[:, SCALE], labels.shape[1:]).numpy()
    found: dict[str, list[float]] = {"miou": [], "accuracy": [], "many_to_one_44": []}
    for seed in SEEDS:
        for k in (11, 44):
            _, of = kmeans(frames.regions.codes, k, seed=seed, restarts=1)
            clusters = np.full((len(labels), int(cache.counts.max())), k)
            clusters[frames.regions.image, frames.regions.region] = of.numpy()
            table = metrics.confusion(
                clusters[np.arange(len(ids))[:, None, None], ids], labels, k + 1, len(CLASS_NAMES)
            )
            if k == 44:
                found["many_to_one_44"].append(metrics.many_to_one(table))
            else:
                scores = metrics.score(table)
                found["miou"].append(scores.miou)
                found["accuracy"].append(scores.accuracy)
    return {name: round(statistics.fmean(values), 4) for name, values in found.items()}


def regions_of(folder: Path, beside: Path | None = None) -> RegionCache:
    """The regions of a folder's images, and of another's, kept in runs/pretraining/cache."""
    paths = [path for one in (folder, beside) if one is not None for path in one.iterdir() if path.is_file()]
    return open_regions(paths, OPTIONS.regions, KEPT / "cache", Console(stderr=True))


def compare(given: argparse.Namespace) -> None:
    """Trains and judges one line without labels, or adds to all lines what labels say."""
    frames, lines = regions_of(given.camvid / "images" / "train"), dict[str, Any]()
    if given.objective:
        name, asked = given.name or given.objective, json.loads(given.options)
        options = PretrainOptions.model_validate(of_objective(given.objective) | asked)
        file = KEPT / f"{name}.safetensors"
        cache = regions_of(given.camvid / "images" / "train", given.photos) if given.photos else frames
        lines[name] = {"objective": given.objective, "options": asked, "images": len(cache)}
        lines[name] |= trained(options, cache, given.seconds, file)
        lines[name] |= judged(file, frames, regions_of(given.camvid / "images" / "val"))
    for name, line in _written()["results"].items() if given.labels else ():
        if "labels" not in line and (file := KEPT / f"{name}.safetensors").exists():
            found = coded(file, frames)
            labels = labels_of(given.camvid, frames, (found.cells.shape[1], found.cells.shape[2]))
            lines[name] = {"labels": {"probe": probe(found, labels), "regions": clustered(found, labels, frames)}}
    written = _written() | {"machine": machine.describe()}  # read again: two lines may be trained at once
    for name, line in lines.items():
        print(name, json.dumps(line), flush=True)
        written["results"][name] = line if given.objective else written["results"][name] | line
    RESULTS.write_text(json.dumps(written, indent=1) + "\n")


def _written() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return known or {"what": "python -m benchmarks.pretraining", "results": {}}


def judged(weights: Path, frames: RegionCache, unseen: RegionCache) -> dict[str, float]:
    """The two shares and the criterion, their mean; no labels."""
    recognized, agreed = recognize(weights, unseen)[1], across_drives(coded(weights, frames))
    shares = {"recognized": recognized, "agreement": agreed, "criterion": (recognized + agreed) / 2}
    return {name: round(value, 4) for name, value in shares.items()}


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="*", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--camvid", type=Path)
    parser.add_argument("--objective", choices=OBJECTIVES)
    parser.add_argument("--seconds", type=float, default=360.0, help="of one core")
    parser.add_argument("--name", help="of the line and its weights; default: the objective's")
    parser.add_argument("--options", default="{}", help="of PretrainOptions that are not the objective's own, as JSON")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--labels", action="store_true")
    given = parser.parse_args()
    if given.camvid:
        compare(given)
        return
    if given.data is None or not given.weights:
        parser.error("give WEIGHTS and --data, or --camvid")
    paths = sorted(path for path in given.data.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as scratch:
        cache = open_regions(paths, OPTIONS.regions, Path(scratch), Console(quiet=True))
        for weights in given.weights:
            loss, hit = recognize(weights, cache)
            print(f"{weights}: held-out contrastive loss {loss:.3f}, regions recognized {hit:.3f}")


if __name__ == "__main__":
    main()
