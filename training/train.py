"""The command people type: a folder of images → a bundle and a report.

    python training/train.py --data photos --out runs/photos

Knows no method and no network: it opens the images, settles the recipe and the weights, runs the stages,
clusters where the method leaves that to it, measures, exports.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and the root is not on it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from models.bundle import Bundle
from models.errors import UsageError
from training import methods
from training.config import recipe as recipes
from training.config.facts import note
from training.config.run import Run, begin, folders_of, require_same, resume_command, write_text
from training.data import datasets
from training.data.errors import DataError
from training.data.images import evenly
from training.data.preprocess import input_spec
from training.discovery.discover import discover
from training.discovery.segmenter import Segmenter
from training.export import provenance
from training.export.carry_over import carried_over
from training.export.corpus_stats import measure
from training.export.onnx import Deployed, to_onnx
from training.export.write_bundle import write_bundle
from training.methods.base import Method
from training.pretraining import weights
from training.progress import exit_code
from training.report import training_page
from training.trainer import loop
from training.trainer.seeds import seed_all

_DEFAULT_METHOD = "stego"
_CHECKED_IMAGES = 4  # on which ONNX is held against torch


def train(run: Run) -> Bundle:
    """Everything after the images are open: weights, stages, clusters, measuring, bundle and report."""
    asked, seconds = run.recipe, dict[str, float]()
    with timed("weights", seconds):
        run = replace(run, recipe=run.recipe.model_copy(update={"backbone": weights.settle(run)}))
        method = build(run)
    with timed("prepare", seconds):
        method.prepare()
    seconds["stages"] = loop.fit(method, method.stages(), run)
    with timed("clusters", seconds):
        found = discover(run, method)
    bundle = finish(run, found, seconds)
    write_text(run.folder / "report.html", training_page.page_of(bundle, recipes.encode(asked), run))
    return bundle


@contextmanager
def timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    """Notes how long the block took."""
    began = time.monotonic()
    yield
    seconds[what] = time.monotonic() - began


def build(run: Run) -> Method[Any]:
    """The recipe's method, untrained."""
    kind = methods.method(run.recipe.method)
    seed_all(run.recipe.seed)
    return kind(kind.Config.model_validate(run.recipe.options), run)


def finish(run: Run, found: Segmenter, seconds: dict[str, float]) -> Bundle:
    """Measures on the training images and writes RUN/bundle."""
    recipe, images = run.recipe, run.images
    spec = input_spec(found.encoder, recipe.input.size).model_copy(update={"bands": images.bands})
    named: tuple[tuple[str, str], ...] = ()
    if recipe.export.align_to:
        with timed("aligning", seconds):
            found, named = carried_over(found, spec, run)
    with timed("exporting", seconds):
        onnx = to_onnx(Deployed(found.encoder, found.compared.detach().float()), spec)
    with timed("measuring", seconds):
        seen = measure(
            found, spec, images, exemplars=recipe.export.exemplars, device=run.device, console=run.console,
            most=recipe.export.measured_images, onnx=onnx, seed=recipe.seed, workers=recipe.workers,
        )  # fmt: skip
    note(run, "photos", seen.photos.facts())
    return write_bundle(
        found,
        spec,
        provenance.origin(run),
        fractions=seen.fractions.tolist(),
        golden=seen.golden,
        exemplars=seen.exemplars,
        images=[images[i] for i in evenly(len(images), _CHECKED_IMAGES)],
        report=training_page.facts(images, seen, run.device, loop.read_log(run.log), seconds, found.agreement),
        console=run.console,
        folder=run.folder / "bundle",
        onnx=onnx,
        named=named,
    )


def default_recipe(method: str | None) -> dict[str, Any]:
    """The page for a folder of one's own: training/recipes/folder-<method>.toml, where there is one."""
    name = method or _DEFAULT_METHOD
    page = Path(__file__).resolve().parent / "recipes" / f"folder-{name}.toml"
    return recipes.read(page) if page.exists() else {"method": name}


def command(
    out: Annotated[Path, typer.Option(help="Folder of the run; new, or with --resume one that was begun.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of images, searched to the bottom; repeatable; of a data set, its own folder."),
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
    align_to: Annotated[
        Path | None, typer.Option(help="Bundle whose ids, names and colors are kept where clusters are the same.")
    ] = None,
    no_exemplars: Annotated[
        bool, typer.Option("--no-exemplars", help="Private images: no photo and no part of one leaves the run.")
    ] = False,
) -> None:
    """Train on a folder of unlabelled images; writes OUT/bundle and OUT/report.html."""
    console = Console(stderr=True)
    with exit_code(console, again=resume_command(out)):
        where = _device(device)
        begun = begin(out, resume=resume)
        overrides = [*(override or []), *(["export.exemplars=0"] if no_exemplars else [])]
        if align_to is not None:
            Bundle.load(align_to)  # what is wrong with it is said before hours of training
            overrides.append(f"export.align_to={json.dumps(str(align_to.resolve()), ensure_ascii=False)}")
        before = recipes.parse(begun["recipe"], config_of=methods.config) if begun else None
        if before and recipe is None and method is None and dataset is None and not overrides:
            settled = before
        else:
            page = recipes.read(recipe) if recipe else default_recipe(method or (before.method if before else None))
            settled = recipes.parse(page, config_of=methods.config, overrides=overrides, method=method, dataset=dataset)
        folders = data or (folders_of(begun["data"]) if begun else None)
        if not folders:
            raise DataError("--data is missing: the folder that holds your images")
        bands = settled.data.bands or None
        images = datasets.open(
            settled.dataset, folders, split=settled.split, bands=bands, console=console, without=[out],
            label_maps=settled.data.label_maps, index=out / "cache" / "images.sqlite3",
        )  # fmt: skip
        run = Run(settled, images, out, where, console)
        if begun and before:
            require_same(begun["data"], before, run)
        else:
            run.write_facts()
        bundle = train(run)
    _tell(run, bundle)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no GPU here; leave --device out, or install torch for CUDA")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: write cpu, cuda or cuda:1") from None


def _tell(run: Run, bundle: Bundle) -> None:
    count = len(run.images.skipped)
    skipped = f", {count} skipped (see {run.folder / 'skipped.txt'})" if count else ""
    print(f"{len(run.images)} images{skipped}, {len(bundle.manifest.clusters)} clusters")
    print(f"bundle  {bundle.path}")
    print(f"report  {run.folder / 'report.html'}")
    print(f"serve   tessera serve --bundle {shlex.quote(str(bundle.path))}")


def main() -> None:
    """`tessera train`."""
    typer.run(command)


if __name__ == "__main__":
    main()
