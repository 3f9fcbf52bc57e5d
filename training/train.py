"""The command people type: a folder of images → a bundle and a report.

    python training/train.py --data photos --out runs/photos

Knows no method and no network: it settles what was asked for, opens the images and locks the run's folder; what comes
before training is in beginning.py, training in pipeline.py.
"""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and the root is not on it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torch takes seconds to come, and nothing has begun: no traceback

import json
from contextlib import nullcontext
from typing import Annotated, Any

import torch
import typer

from models.bundle import Bundle
from models.errors import UsageError
from models.lock import locked
from models.terminal import command_line
from models.terminal.progress import LoggedConsole, exit_code, say, tell
from training import beginning, distributed, methods, pipeline
from training.config import recipe as recipes
from training.config import run_folder
from training.config.run import Run, folders_of, require_resumable, require_same_images, resume_command
from training.data import datasets
from training.data.errors import DataError
from training.device import device as the_device
from training.distillation import asked
from training.pretraining import weights
from training.trainer import initial

_DEFAULT_METHOD = "stego"


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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, by its own recipe.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run in OUT, and nothing else, and begin anew.")
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="Begin with an earlier run's weights: its folder, or a checkpoint."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it takes, and change nothing.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto: a GPU of CUDA, else the CPU.")] = "auto",
    dataset: Annotated[
        str | None,
        typer.Option(help=f"One of: {', '.join(datasets.names())}; its split is the recipe's (--set split=val)."),
    ] = None,
    align_to: Annotated[
        Path | None, typer.Option(help="Bundle whose ids, names and colors are kept where clusters are the same.")
    ] = None,
    teacher: Annotated[
        str,
        typer.Option(
            metavar="FILE|NAME|BUNDLE",
            help="What a student learns from: a backbone's weights, a name of timm's, or a finished bundle or run.",
        ),
    ] = "",
    student: Annotated[
        str,
        typer.Option(metavar="NAME", help="A small CNN of timm's that learns the label maps, and is exported instead."),
    ] = "",
    no_exemplars: Annotated[
        bool, typer.Option("--no-exemplars", help="Private images: no photo and no part of one leaves the run.")
    ] = False,
) -> None:
    """Train on a folder of unlabelled images; writes OUT/bundle and OUT/report.html."""
    console = LoggedConsole()
    again = [command_line.again("train")]  # until the run begins; then it goes on
    with exit_code(console, again=lambda: again[-1]), distributed.joined(console):
        where = the_device(device)
        if (processes := distributed.world()) > 1:
            say(console, f"{processes} processes train together: batches are those of all of them")
        if resume and (overwrite or init):
            raise UsageError("--resume goes on with a run as it began: leave out --overwrite and --init")
        before = distributed.from_main(lambda: run_folder.begun(out)) if resume else None
        if resume and before is None:
            raise UsageError(f"{out} holds no run to go on with; leave --resume out to start one")
        overrides = [*asked.values(teacher, student, override or ()), *(override or [])]
        overrides += ["export.exemplars=0"] if no_exemplars else []
        if align_to is not None:
            Bundle.load(align_to)  # what is wrong with it is said before hours of training
            overrides.append(f"export.align_to={json.dumps(str(align_to.resolve()), ensure_ascii=False)}")
        default = asked.page_for(asked.find(Path(teacher))) if Path(teacher or "-").is_dir() else default_recipe(method)
        settled = settle(before, recipe, overrides, default=default, method=method, dataset=dataset, out=out)
        weights.require_usable(settled.backbone)
        asked.require_usable(settled, teacher)
        folders = data or (folders_of(before["data"]) if before else None)
        if not folders:
            raise DataError("--data is missing: the folder that holds your images")
        if before is None:
            distributed.from_main(lambda: run_folder.require_free(out, overwrite=overwrite))
        if init and settled.student.teacher:
            raise UsageError(
                "--init begins a method's network, and none is trained: the teacher is finished; leave it out"
            )
        start = initial.find(init) if init else None
        if start and overwrite and out.resolve() in start.resolve().parents:
            raise UsageError(f"--init {init} lies in {out}, which --overwrite removes: name another --out")
        with locked(out) if distributed.is_main() and not dry_run else nullcontext():
            images = distributed.from_main(
                lambda: datasets.open(
                    settled.dataset, folders, split=settled.split, bands=settled.data.bands or None, console=console,
                    without=[out], label_maps=settled.data.label_maps,
                    index=None if dry_run else out / "cache" / "images.sqlite3",
                )
            )  # fmt: skip
            run = Run(settled, images, out, where, console)
            if before:
                require_same_images(before["data"], images)
            if dry_run:
                distributed.from_main(lambda: beginning.show_plan(run, start))
                return
            distributed.from_main(lambda: beginning.write_beginning(run, console, start, anew=before is None))
            again.append(resume_command(out))
            try:
                bundle = pipeline.train(run)
            except torch.OutOfMemoryError:  # of a GPU
                raise MemoryError from None
        if distributed.is_main():
            _tell(run, bundle)


def default_recipe(method: str | None) -> dict[str, Any]:
    """The page for a folder of one's own: training/recipes/folder-<method>.toml, where there is one."""
    name = method or _DEFAULT_METHOD
    page = Path(__file__).resolve().parent / "recipes" / f"folder-{name}.toml"
    return recipes.read(page) if page.exists() else {"method": name}


def settle(
    before: dict[str, Any] | None,
    page: Path | None,
    overrides: list[str],
    *,
    default: dict[str, Any],
    method: str | None,
    dataset: str | None,
    out: Path,
) -> recipes.Recipe:
    """The recipe of a run: a page, the run's own where it goes on, or the default one. Raises UsageError."""
    named = recipes.read(page) if page else (before["recipe"] if before else default)
    found = recipes.parse(named, config_of=methods.config, overrides=overrides, method=method, dataset=dataset)
    if before:
        require_resumable(recipes.parse(before["recipe"], config_of=methods.config), found, out)
    return found


def _tell(run: Run, bundle: Bundle) -> None:
    count = len(run.images.skipped)
    skipped = f", {count} skipped (see {run.folder / 'skipped.txt'})" if count else ""
    tell(run.console, f"{len(run.images)} images{skipped}, {len(bundle.manifest.clusters)} clusters")
    tell(run.console, f"bundle  {bundle.path}")
    tell(run.console, f"report  {run.folder / 'report.html'}")
    tell(run.console, f"serve   {command_line.command('serve', '--bundle', bundle.path)}")


def main() -> None:
    """`tessera train`."""
    typer.run(command)


if __name__ == "__main__":
    main()
