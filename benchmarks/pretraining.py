"""How well pretrained backbones recognize a region in another view of an image they never saw; no labels.

    python -m benchmarks.pretraining WEIGHTS [WEIGHTS …] --data ../shared/data/camvid/images/val

The agreement between clusterings cannot rank backbones (one that has learned nothing agrees with itself); the
pretraining's own aim, on images kept out of it, can. Prints, for each file, the contrastive loss of the codes and how
often the nearest of a batch's regions is the same region in the other view.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from torch.nn import functional as F

from models.nets.build import build
from training.data.regions import RegionCache, open_regions
from training.features.region_codes import pool
from training.pretraining.contrastive import Network, PretrainOptions, draw

BATCHES = 12
OPTIONS = PretrainOptions(batch_size=16, seed=123)  # the same views for every file


@torch.no_grad()
def recognize(weights: Path, cache: RegionCache) -> tuple[float, float]:
    """(mean contrastive loss, share of regions recognized) over `BATCHES` batches of two views."""
    network = Network(OPTIONS).eval()
    network.backbone = build(OPTIONS.backbone, weights).eval()
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


def main() -> None:
    """The command of this file's first lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    paths = sorted(path for path in given.data.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as scratch:
        cache = open_regions(paths, OPTIONS.regions, Path(scratch), Console(quiet=True))
        for weights in given.weights:
            loss, hit = recognize(weights, cache)
            print(f"{weights}: held-out contrastive loss {loss:.3f}, regions recognized {hit:.3f}")


if __name__ == "__main__":
    main()
