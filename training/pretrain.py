"""Trains a small backbone from nothing on folders of images, without labels:

    python training/pretrain.py --data photos --data more-photos --out runs/backbone.safetensors

Knows nothing of methods, clusters' names or bundles, nor of how it is done (training/pretraining/). What it writes
is a file of weights that a recipe names under [backbone] as `weights`, on a machine that reaches no model hub or for
images unlike ImageNet's. Beside it stands FILE.log.jsonl with its losses and, until it is whole, FILE.partial.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and the root is not on it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import re
import time
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from models.errors import UsageError
from models.terminal.progress import exit_code, say
from training import distributed
from training.data import datasets
from training.data.datasets.folder import LabelMaps
from training.data.errors import reason_of
from training.data.images import Bands
from training.data.regions import RegionOptions, open_regions, thinned
from training.device import device as the_device
from training.pretraining.options import ObjectiveName, PretrainOptions, of_objective
from training.pretraining.pretraining import pretrain
from training.trainer.loop import Workspace

_AGAIN = "the same command"
_FEWEST = 2  # images: a region is told from those of others


def options_of(**given: Any) -> PretrainOptions:
    """The options of the command line. Raises UsageError for a value that cannot be."""
    try:
        return PretrainOptions(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{name} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def make_place(out: Path, cache: Path, *, overwrite: bool) -> None:
    """Makes the folders of the weights and of the cache. Raises UsageError where that fails, or weights are there."""
    if out.is_dir():
        raise UsageError(f"--out {out}: a folder; name the file of weights to write in it")
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out}: it is there already; name another file, or add --overwrite")
    for option, folder in ((f"--out {out}", out.parent), (f"--cache {cache}", cache)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{option}: the folder cannot be made: {reason_of(error)}; name another") from None


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
    objective: Annotated[
        ObjectiveName,
        typer.Option(help="Of a region in two views: told from others, of like prototypes, or alike (SIGReg)."),
    ] = "infonce",
    rounds: Annotated[
        int | None, typer.Option(help="Before each but the first InfoNCE groups all regions; default: 2 of it, else 1.")
    ] = None,
    batch_size: int = PretrainOptions().batch_size,
    lr: float = PretrainOptions().lr,
    bands: Annotated[
        str, typer.Option(metavar="N|R,G,B", help="Bands to read of files with many, from 1; default: as each says.")
    ] = "",
    label_maps: Annotated[
        LabelMaps, typer.Option(help="Flat files named as the photos beside them: left out as label maps, or photos.")
    ] = "leave_out",
    seed: int = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto: a GPU of CUDA, else the CPU.")] = "cpu",
    cache: Annotated[Path | None, typer.Option(help="Where regions are kept; default: beside --out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the weights that --out names.")] = False,
) -> None:
    """Train a backbone from scratch, without labels. Interrupted, the same command goes on."""
    console = Console()
    with exit_code(console, again=_AGAIN), distributed.joined(console):
        where = the_device(device)
        cut = RegionOptions(bands=bands_of(bands))
        chosen = options_of(
            **of_objective(objective) | ({} if rounds is None else {"rounds": rounds}),
            backbone=backbone, steps=steps, batch_size=batch_size, lr=lr, seed=seed, regions=cut,
        )  # fmt: skip
        kept = cache or out.parent / "cache"
        distributed.from_main(lambda: make_place(out, kept, overwrite=overwrite))
        images = distributed.from_main(
            lambda: datasets.open(
                "folder", data, bands=cut.bands, console=console, without=[kept], label_maps=label_maps,
                index=kept / "images.sqlite3", fewest=_FEWEST,
            )
        )  # fmt: skip
        used = thinned(images.paths, chosen.most_images)
        with distributed.main_first():
            regions = open_regions(used, chosen.regions, kept, console, read=images.read)
        began = time.perf_counter()
        partial, log = (out.with_name(f"{out.name}.{end}") for end in ("partial", "log.jsonl"))
        pretrain(regions, chosen, where, Workspace(partial, log, seed, console, _AGAIN), out)
    say(console, f"{out}: {len(used)} of {len(images)} images, {steps} steps, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    typer.run(main)
