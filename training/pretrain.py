"""Trains a small backbone from nothing on folders of images, without labels:

    python training/pretrain.py --data photos --data more-photos --out runs/backbone.safetensors

Knows nothing of methods, clusters' names or bundles, nor of how it is done (training/pretraining/contrastive.py). What
it writes is a file of weights that a recipe names under [backbone] as `weights`, on a machine that reaches no model hub
or for images unlike ImageNet's. Beside it stands FILE.log.jsonl with its losses and, until it is whole, FILE.partial.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and the root is not on it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import re
import time
from collections.abc import Sequence
from typing import Annotated

import torch
import typer
from rich.console import Console

from models.errors import UsageError
from models.io.decode import SUFFIXES
from training.data.errors import DataError
from training.data.images import Bands
from training.data.regions import RegionOptions, open_regions, thinned
from training.pretraining.contrastive import PretrainOptions, pretrain
from training.progress import exit_code, say
from training.trainer.loop import Workspace

_AGAIN = "the same command"


def find_images(folders: Sequence[Path]) -> list[Path]:
    """Every image below the folders, sorted."""
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder: --data takes folders of images")
    found = {path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES}
    if len(found) < 2:
        raise DataError(f"{len(found)} images under {', '.join(map(str, folders))}: at least 2 are needed")
    return sorted(found)


def bands_of(text: str) -> Bands:
    """ "4,3,2" or "1" as numbers; None of an empty text. Raises UsageError."""
    if not re.fullmatch(r"([1-9]\d*(,[1-9]\d*,[1-9]\d*)?)?", text):
        raise UsageError(f"--bands {text}: write one number, for gray, or three, for R, G, B, from 1: --bands 4,3,2")
    return tuple(map(int, text.split(","))) if text else None


def main(
    data: Annotated[list[Path], typer.Option(help="Folder of images; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Weights to write (.safetensors).")],
    backbone: Annotated[str, typer.Option(help="timm's name of a CNN with feature maps.")] = "resnet10t",
    steps: int = PretrainOptions().steps,
    rounds: Annotated[int, typer.Option(help="From the second on, regions of one cluster attract.")] = 2,
    batch_size: int = PretrainOptions().batch_size,
    lr: float = PretrainOptions().lr,
    bands: Annotated[
        str, typer.Option(metavar="N|R,G,B", help="Bands to read of files with many, from 1; default: as each says.")
    ] = "",
    seed: int = 0,
    device: str = "cpu",
    cache: Annotated[Path | None, typer.Option(help="Where regions are kept; default: beside --out.")] = None,
) -> None:
    """Train a backbone from scratch, without labels. Interrupted, the same command goes on."""
    console = Console()
    with exit_code(console, again=_AGAIN):
        cut = RegionOptions(bands=bands_of(bands))
        chosen = PretrainOptions(
            backbone=backbone, steps=steps, rounds=rounds, batch_size=batch_size, lr=lr, seed=seed, regions=cut
        )
        paths = find_images(data)
        out.parent.mkdir(parents=True, exist_ok=True)
        used = thinned(paths, chosen.most_images)
        regions = open_regions(used, chosen.regions, cache or out.parent / "cache", console)
        began = time.perf_counter()
        partial, log = (out.with_name(f"{out.name}.{end}") for end in ("partial", "log.jsonl"))
        pretrain(regions, chosen, torch.device(device), Workspace(partial, log, seed, console, _AGAIN), out)
    say(console, f"{out}: {len(used)} of {len(paths)} images, {steps} steps, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    typer.run(main)
