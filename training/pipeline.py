"""A run from open images to its bundle and report: weights, stages, clusters, measuring, export; or a student of these.

Knows no method and no network, nor how a run is asked for or begun.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.bundle import Bundle, BundleError
from models.terminal.progress import Progress
from training import distributed, methods
from training.config import recipe as recipes
from training.config.facts import note
from training.config.run import Run, write_text
from training.data.images import evenly
from training.data.preprocess import input_spec
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
