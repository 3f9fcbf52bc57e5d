"""The command people type: a folder of images → a bundle and a report.

    python training/train.py --data photos --out runs/photos

Knows no method and no network: it opens the images, settles the recipe and the weights, runs the stages,
clusters where the method leaves that to it, measures, exports.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and would shadow `datasets`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import shlex
import time
from dataclasses import replace
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from models.bundle import Bundle
from models.errors import TesseraError
from training import methods
from training.config import recipe as recipes
from training.config.recipe import RecipeError
from training.config.run import Run, RunError, begin, require_same
from training.data import datasets
from training.data.images import DataError, Images
from training.data.preprocess import input_spec
from training.discovery.discover import Discovery, discover
from training.export.corpus_stats import measure
from training.export.write_bundle import export
from training.methods import UnknownMethod
from training.methods.base import Method
from training.pretraining import weights
from training.report import training_page
from training.trainer import loop
from training.trainer.loop import Interrupted

_DEFAULT_METHOD = "stego"
_WRONG_USAGE = (RecipeError, RunError, DataError, UnknownMethod)


def train(run: Run) -> Bundle:
    """Everything after the images are open: weights, stages, clusters, measuring, bundle and report."""
    asked, began = run.recipe, time.monotonic()
    run = replace(run, recipe=run.recipe.model_copy(update={"backbone": weights.settle(run)}))
    method = build(run)
    seconds = {"weights": time.monotonic() - began}
    began = time.monotonic()
    method.prepare()
    seconds["prepare"] = time.monotonic() - began
    seconds["stages"] = loop.fit(method, method.stages(), run)
    bundle = finish(run, discover(run, method, seconds), method.temperature, run.folder / "bundle", seconds)
    training_page.write_page(run.folder / "report.html", bundle, recipes.encode(asked), run)
    return bundle


def build(run: Run) -> Method:
    """The recipe's method, untrained."""
    kind = methods.method(run.recipe.method)
    loop.seed(run.recipe.seed)
    return kind(kind.Config.model_validate(run.recipe.options), run)


def finish(run: Run, found: Discovery, temperature: float, folder: Path, seconds: dict[str, float]) -> Bundle:
    """Measures on the training images and writes the bundle."""
    began = time.monotonic()
    spec = input_spec(found.encoder, run.recipe.input.size)
    seen = measure(found.encoder, found.centroids, found.assignment, spec, run)
    seconds["measuring"] = time.monotonic() - began
    bundle, _ = export(
        found.encoder,
        found.centroids,
        assignment=found.assignment,
        temperature=temperature,
        spec=spec,
        stats=seen,
        report=training_page.facts(run, seen, seconds, found.agreement),
        run=run,
        folder=folder,
    )
    return bundle


def default_recipe(method: str | None) -> dict[str, Any]:
    """The page for a folder of one's own: training/recipes/folder-<method>.toml, where there is one."""
    name = method or _DEFAULT_METHOD
    page = Path(__file__).resolve().parent / "recipes" / f"folder-{name}.toml"
    return recipes.read(page) if page.exists() else {"method": name}


def command(
    out: Annotated[Path, typer.Option(help="Folder of the run; new, or with --resume one that was begun.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of images, searched to the bottom; of a data set, its own folder.")
    ] = None,
    method: Annotated[str | None, typer.Option(help=f"One of: {', '.join(methods.names())}.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML recipe; without it one for a folder of photos.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="a.b=v", help="Override one value of the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    dataset: Annotated[
        str | None,
        typer.Option(help=f"One of: {', '.join(datasets.names())}; its split is the recipe's (--set split=val)."),
    ] = None,
    no_exemplars: Annotated[
        bool, typer.Option("--no-exemplars", help="Private images: no photo and no part of one leaves the run.")
    ] = False,
) -> None:
    """Train on a folder of unlabelled images; writes OUT/bundle and OUT/report.html."""
    console = Console(stderr=True)
    try:
        where = _device(device)
        begun = begin(out, resume=resume)
        overrides = [*(override or []), *(["export.exemplars=0"] if no_exemplars else [])]
        if begun is not None and recipe is None and method is None and dataset is None and not overrides:
            settled = recipes.parse(begun["recipe"])
        else:
            page = (
                recipes.read(recipe)
                if recipe
                else default_recipe(method or (begun["recipe"]["method"] if begun else None))
            )
            settled = recipes.parse(page, overrides=overrides, method=method, dataset=dataset)
        folder = data or (Path(begun["data"]["folder"]) if begun is not None else None)
        if folder is None:
            raise DataError("--data is missing: the folder that holds your images")
        images = datasets.open(settled.dataset, folder, split=settled.split, console=console)
        run = Run(settled, images, out, where, console)
        if begun is None:
            run.write_facts()
        else:
            require_same(begun, settled, images)
        bundle = train(run)
    except Interrupted as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        again = f"python training/train.py --out {shlex.quote(str(out))} --resume"
        console.print(f"stopped; to go on from the last checkpoint: {again}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    except TesseraError as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, _WRONG_USAGE) else 1) from None
    _say(out, bundle, images)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not torch.cuda.is_available():
        raise RunError(f"--device {name}: torch sees no GPU here; leave --device out, or install torch for CUDA")
    try:
        return torch.device(name)
    except RuntimeError:
        raise RunError(f"--device {name}: write cpu, cuda or cuda:1") from None


def _say(out: Path, bundle: Bundle, images: Images) -> None:
    skipped = f", {len(images.skipped)} skipped (see {out / 'skipped.txt'})" if images.skipped else ""
    print(f"{len(images)} images{skipped}, {len(bundle.manifest.clusters)} clusters")
    print(f"bundle  {bundle.path}")
    print(f"report  {out / 'report.html'}")
    print(f"serve   tessera serve --bundle {shlex.quote(str(bundle.path))}")


def main() -> None:
    """`tessera train`."""
    typer.run(command)


if __name__ == "__main__":
    main()
