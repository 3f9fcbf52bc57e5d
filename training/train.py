"""The command people type: a folder of images → a bundle and a report.

    python training/train.py --data photos --out runs/photos

Knows no method and no network: it opens the images, settles the recipe and the weights, runs the stages,
clusters where the method leaves that to it, measures, exports.
"""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # the script's own folder comes first on the path, and the root is not on it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torch takes seconds to come, and nothing has begun: no traceback

import json
import shutil
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Annotated, Any

import torch
import typer

from models.bundle import Bundle, BundleError
from models.errors import UsageError
from models.lock import locked
from models.terminal import command_line
from models.terminal.progress import LoggedConsole, Progress, exit_code, say, span, tell
from training import distributed, methods, plan
from training.config import recipe as recipes
from training.config import run_folder
from training.config.facts import note
from training.config.run import Run, folders_of, require_resumable, require_same_images, resume_command, write_text
from training.data import datasets
from training.data.errors import DataError
from training.data.images import evenly
from training.data.preprocess import input_spec
from training.device import device as the_device
from training.discovery.discover import discover
from training.discovery.segmenter import Segmenter
from training.distillation import account, asked, learner
from training.distillation.comparison import compare
from training.distillation.lessons import open_lessons
from training.distillation.teacher import Teacher
from training.export import provenance
from training.export.carry_over import carried_over
from training.export.corpus_stats import measure
from training.export.onnx import Deployed, to_onnx
from training.export.positions import kept_positions
from training.export.write_bundle import write_bundle
from training.methods.base import Method
from training.pretraining import weights
from training.report import training_page
from training.report.previews import Previews
from training.stage_costs import StageCosts
from training.trainer import batch_norm, initial, loop
from training.trainer.seeds import seed_all

_DEFAULT_METHOD = "stego"
_DRY_RUN_S, _MEASURED_S = 2.0, 0.0  # of measuring: where it is all that is done; before a run one call of each
_SKIPPED_SHOWN = 20  # by a dry run
_CHECKED_IMAGES = 4  # on which ONNX is held against torch


def train(run: Run) -> Bundle:
    """Everything after the images are open: weights, stages, clusters, measuring, bundle and report; or a student."""
    costs = StageCosts(run)
    bundle = (
        train_student(run, costs) if run.recipe.student.backbone else train_method(run, costs, run.folder / "bundle")
    )
    if distributed.is_main():
        write_text(run.folder / "report.html", training_page.page_of(bundle, recipes.encode(run.recipe), run))
    return bundle


def train_method(run: Run, costs: StageCosts, folder: Path) -> Bundle:
    """What the recipe's method finds, as the bundle in `folder`."""
    with costs.timed("weights"):
        run = replace(run, recipe=run.recipe.model_copy(update={"backbone": weights.settle(run)}))
        method = build(run)
        if (begun := run.checkpoints / initial.FILE).exists():
            method.begin(initial.read(begun), begun.name)
    with costs.timed("prepare"):
        method.prepare()
    with costs.timed("stages"):
        trained = loop.fit(method, method.stages(), run, watch=Previews(run, method))
    with costs.timed("clusters"), Progress(run.console, "clusters", None):
        found = discover(run, method)
    return distributed.from_main(lambda: finish(run, found, costs, trained, folder))


def train_student(run: Run, costs: StageCosts) -> Bundle:
    """A student of a finished bundle, or of what the recipe's method finds, whose bundle is RUN/teacher then."""
    given = run.recipe.student.teacher
    bundle = asked.find(Path(given)) if given else _own_teacher(run, costs)
    teacher = Teacher.of(bundle, run.device)
    with costs.timed("lessons"):
        lessons = open_lessons(teacher, run)
    with costs.timed("student"):
        found, trained = learner.learn(teacher, lessons, run)
    return distributed.from_main(lambda: finish(run, found, costs, trained, teacher=teacher))


def _own_teacher(run: Run, costs: StageCosts) -> Bundle:
    """The bundle of what the recipe's method finds; as it is where it is whole, of a run that goes on."""
    folder = run.folder / "teacher"
    with suppress(BundleError):
        made = Bundle.load(folder)
        if made.manifest.provenance.recipe.get("export") == provenance.provenance(run).recipe["export"]:
            return made
    alone = run.recipe.model_copy(update={"student": recipes.StudentSection()})
    return train_method(replace(run, recipe=alone), costs, folder)


def build(run: Run) -> Method[Any]:
    """The recipe's method, untrained."""
    kind = methods.method(run.recipe.method)
    seed_all(run.recipe.seed)
    built = kind(kind.Config.model_validate(run.recipe.options), run)
    batch_norm.synchronize(built)
    return built


def finish(
    run: Run,
    found: Segmenter,
    costs: StageCosts,
    trained: float,
    folder: Path | None = None,
    teacher: Teacher | None = None,
) -> Bundle:
    """Measures on the training images and writes the bundle.

    trained  seconds of the stages, over all resumptions
    folder   of the bundle; None: RUN/bundle
    teacher  from which it was learned, and whose clusters it has
    """
    recipe, images = run.recipe, run.images
    spec = input_spec(found.encoder, recipe.input.size).model_copy(update={"bands": images.bands})
    named: tuple[tuple[str, str], ...] = ()
    if teacher:
        named = tuple((one.name, one.color) for one in teacher.bundle.manifest.clusters)
    elif recipe.export.align_to:
        with costs.timed("aligning"):
            found, named = carried_over(found, spec, run)
    with costs.timed("exporting"), Progress(run.console, "exporting", None):
        onnx = to_onnx(Deployed(found.encoder, found.compared.detach().float()), spec)
    with costs.timed("measuring"):
        seen = measure(
            found, spec, images, exemplars=recipe.export.exemplars, device=run.device, console=run.console,
            most=recipe.export.measured_images, onnx=onnx, seed=recipe.seed, workers=recipe.workers,
        )  # fmt: skip
    note(run, "photos", seen.photos.facts())
    seconds = costs.seconds | {"student" if teacher else "stages": trained}
    report = training_page.facts(images, seen, run.device, loop.read_log(run.log), seconds, found.agreement)
    if teacher:
        with costs.timed("comparing"):
            beside = compare(teacher, onnx, spec, run)
        report["student"] = beside.facts()
    with costs.timed("checking"), Progress(run.console, "checking", None):
        written = write_bundle(
            found,
            spec,
            provenance.origin(run, teacher.bundle if teacher else None),
            fractions=seen.fractions.tolist(),
            apart=seen.apart,
            golden=seen.golden,
            exemplars=seen.exemplars,
            images=[images[i] for i in evenly(len(images), _CHECKED_IMAGES)],
            report=report,
            console=run.console,
            folder=folder or run.folder / "bundle",
            onnx=onnx,
            named=named,
            familiarity=seen.photos.familiarity,
            positions=kept_positions(found, onnx, spec, run),
        )
    if teacher:
        account.give(run, beside, teacher.bundle, written)
    return written


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
                distributed.from_main(lambda: show_plan(run, start))
                return
            distributed.from_main(lambda: write_beginning(run, console, start, anew=before is None))
            again.append(resume_command(out))
            try:
                bundle = train(run)
            except torch.OutOfMemoryError:  # of a GPU
                raise MemoryError from None
        if distributed.is_main():
            _tell(run, bundle)


def write_beginning(run: Run, console: LoggedConsole, start: Path | None, *, anew: bool) -> None:
    """What a run's folder holds before anything is trained: facts, plan, weights to begin with, the console's log."""
    planned = plan_of(run, start, seconds=_MEASURED_S) if anew else None
    if planned:
        run_folder.clear(run.folder)
        if start:
            keep_initial(run, start)
    run.write_facts()
    console.log_to(run.folder / "train.log")
    if planned:
        note(run, "plan", planned.facts())
        about = f"{span(planned.seconds)} on {run.device}"
        say(console, f"about {about}, {planned.disk_bytes / 1e6:.0f} MB of disk")


def plan_of(run: Run, start: Path | None, *, seconds: float) -> plan.Plan:
    """What the run takes. Raises TesseraError where it could not end, or the weights of `start` do not fit."""
    found = plan.make(run, init=start, seconds=seconds)
    found.require_room(run.folder)
    return found


def show_plan(run: Run, start: Path | None) -> None:
    """Shows what --dry-run promises: prepared images, what is left out, the plan. Writes one picture beside the run."""
    console, skipped = run.console, run.images.skipped
    found = plan_of(run, start, seconds=_DRY_RUN_S)
    tell(console, f"{len(run.images)} images, {len(skipped)} left out")
    for one in skipped[:_SKIPPED_SHOWN]:
        tell(console, f"  {run.images.names.of(one.path)}: {one.reason}")
    if len(skipped) > _SKIPPED_SHOWN:
        tell(console, f"  and {len(skipped) - _SKIPPED_SHOWN} more, all of which skipped.txt will name")
    for line in found.lines():
        tell(console, line)
    beside = run.folder.absolute().parent
    file = (beside if beside.is_dir() else Path()) / f"{run.folder.name}-plan.png"
    plan.picture(run, file)
    tell(console, f"{plan.SHOWN} images as the network gets them: {file}")
    tell(console, f"nothing else was written; to begin: {command_line.again('train', without='--dry-run')}")


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


def keep_initial(run: Run, path: Path) -> None:
    """Copies the checkpoint that a run begins with, and the backbone that was trained for it, into the run's folder."""
    run.checkpoints.mkdir(exist_ok=True)
    shutil.copyfile(path, run.checkpoints / initial.FILE)
    if (backbone := initial.backbone(path)) and run.recipe.backbone.weights == "auto":
        shutil.copyfile(backbone, run.folder / weights.FILE)


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
