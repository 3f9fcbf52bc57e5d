"""The plan of a run: parts, steps, disk, memory, and time by a measurement of two seconds.

Knows no method: each tells its passes and stages, on stand-ins for what it would compute. The network is a throwaway
with random weights: nothing is fetched, nothing of the run's own is touched, nothing is written.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from models import hardware
from models.nets.weights import read_weights
from models.terminal.progress import Progress
from training import methods
from training.config.run import Run
from training.config.work import Work
from training.discovery.region_evidence import RegionEvidenceOptions
from training.distillation import asked, learner, lessons
from training.distillation.teacher import Teacher
from training.features import stand_ins
from training.methods.base import Method
from training.planning.plan import Part, Plan
from training.planning.rates import Rates, step_seconds
from training.pretraining import weights
from training.pretraining.options import PretrainOptions
from training.pretraining.pretraining import Pretraining
from training.trainer import initial
from training.trainer.seeds import seeded
from training.trainer.stage import Stage

_CHECKED = 20  # passes of the export's check
_CODED = 5000  # images whose codes are clustered at most, where the method has no clusters of its own
_CODE = 128  # dimensions of a code, where the method has not told: a student's are as many as its teacher's


def make(run: Run, *, init: Path | None = None, seconds: float = 2.0) -> Plan:
    """The plan of a run, by measuring for about so many seconds, half of it for steps.

    init  the checkpoint it begins with

    Raises what building its network raises, TesseraError; UsageError where the checkpoint does not fit.
    """
    hardware.reset_peak()
    if (file := Path(run.recipe.backbone.weights)).is_file():
        read_weights(file)  # what is wrong with it is said now
    with (
        seeded(run.recipe.seed),
        Progress(run.console, "planning", None),
        tempfile.TemporaryDirectory() as scratch,
    ):
        networks = list(_networks(run, init, Path(scratch), seconds))
        parts = [part for network in networks for part in network.parts]
    kept = sum(network.checkpoint_bytes for network in networks)
    parts.append(Part("checkpoints", 1, "files", 0.0, disk_bytes=kept))
    home = next(folder for folder in (run.folder, *run.folder.absolute().parents) if folder.exists())
    return Plan(
        len(run.images), len(run.images.skipped), run.device.type, tuple(parts),
        hardware.peak_bytes(), shutil.disk_usage(home).free, hardware.available_bytes(),
    )  # fmt: skip


@dataclass(frozen=True)
class _Planned:
    """One network's way from nothing to its bundle."""

    parts: list[Part]
    checkpoint_bytes: int


def _networks(run: Run, init: Path | None, scratch: Path, seconds: float) -> Iterator[_Planned]:
    """The method's, or a finished teacher's; and the student's, where there is one."""
    section = run.recipe.student
    rate: Rates
    if section.backbone and section.teacher:
        teacher = Teacher.of(asked.find(Path(section.teacher)), run.device)
        rate, code = Rates(run, teacher, seconds / 2), teacher.bundle.manifest.code
        shape = (teacher.k, code.dim, code.stride)
    else:
        planned, rate, shape = _of_method(run, init, scratch, seconds)
        yield planned
    if section.backbone:
        yield _of_student(run, shape, rate, seconds)


def _of_method(
    run: Run, init: Path | None, scratch: Path, seconds: float
) -> tuple[_Planned, Rates, tuple[int, int, int]]:
    """What the method's network takes; how long images take on its way; its clusters, dimensions of code, stride."""
    brought = bool(init and initial.backbone(init)) and run.recipe.backbone.weights == "auto"
    first = None if brought else weights.first(run)
    method = _throwaway(run, scratch, small=brought or first is not None)
    if init:
        method.begin(initial.read(init), str(init))
    method.stand_in()
    stages, encoder = method.stages(), method.encoder()
    rate = Rates(run, encoder, seconds / 2)
    parts = list(_pretraining(run, first, rate, seconds / 4)) if first else []
    parts += [rate.part(work) for work in method.work()]
    for stage in stages:
        each = step_seconds(stage, lambda stage=stage: method.sample(stage), seconds / 2 / len(stages))  # type: ignore[misc]
        parts.append(Part(stage.name, stage.steps, "steps", stage.steps * each))
    for work in [*_finding(run, method), *_afterwards(run)]:
        parts.append(rate.part(work))
        if work.name == "codes of regions" and run.recipe.clusters.merge:
            parts.append(rate.joining())
        if work.name == "codes of regions" and run.recipe.clusters.distill_steps:
            parts.append(rate.distilling())
    return _Planned(parts, _checkpoints(run, method, stages)), rate, (run.recipe.clusters.count, _CODE, encoder.stride)


def _of_student(run: Run, shape: tuple[int, int, int], teacher: Rates, seconds: float) -> _Planned:
    """What a student takes. shape: its teacher's clusters, dimensions of its code, and stride."""
    seen, never = lessons.split(run.images, run.recipe.student.held_out, run.recipe.student.images)
    student = learner.untrained(run, *shape[:2], "random").train()
    rate, learning = Rates(run, learner.encoder(student), seconds / 2), replace(run, images=seen)
    stage = learner.stage(student, lessons.stand_in(run, *shape), run)
    each = step_seconds(stage, lambda: next(iter(stage.batches(0))), seconds / 4)
    parts = [teacher.part(lessons.work(run, *shape))]
    if run.recipe.student.weights == "regions":
        parts += _pretraining(learning, learner.pretraining(run.recipe, seen), rate, seconds / 4)
    parts.append(Part(stage.name, stage.steps, "steps", stage.steps * each))
    parts += [network.part(Work("comparing", len(never), "serving size")) for network in (teacher, rate)]
    parts += [rate.part(work) for work in _afterwards(run)]
    return _Planned(parts, _checkpoints(run, student, [stage]))


def _throwaway(run: Run, scratch: Path, *, small: bool) -> Method[Any]:
    """The run's method in a folder of its own, of the network that it will have, under random weights.

    small  one that is pretrained here
    """
    backbone = run.recipe.backbone.model_copy(update={"weights": "random"})
    if small:
        name = weights.options_for(run.recipe, run.images).backbone
        backbone = backbone.model_copy(update={"name": name})
    recipe = run.recipe.model_copy(update={"backbone": backbone})
    planned = replace(run, recipe=recipe, folder=scratch, console=Console(quiet=True))
    kind = methods.method(run.recipe.method)
    found: Method[Any] = kind(kind.Config.model_validate(run.recipe.options), planned)
    return found


def _pretraining(run: Run, options: PretrainOptions, rate: Rates, seconds: float) -> Iterator[Part]:
    yield rate.part(stand_ins.regions_work(options.regions, run, options.most_images))
    cache = stand_ins.regions(options.regions, run, options.most_images)
    stage = Pretraining(cache, options, run.device).stage()
    each = step_seconds(stage, lambda: next(iter(stage.batches(0))), seconds)
    yield Part(stage.name, stage.steps, "steps", stage.steps * each)


def _finding(run: Run, method: Method[Any]) -> Iterator[Work]:
    """What finds the clusters of a trained network."""
    count, section = len(run.images), run.recipe.clusters
    if section.unit == "region" or section.distill_steps or section.merge:
        yield Work("codes of regions", count, "regions")
    elif type(method).centroids is Method.centroids or run.recipe.options.get("centroids") == "kmeans":
        yield Work("codes", min(count, _CODED), "serving size")


def _afterwards(run: Run) -> Iterator[Work]:
    """What makes a bundle of a network and its clusters."""
    count = len(run.images)
    yield Work("measuring", min(count, run.recipe.export.measured_images), "serving size")
    yield Work("tree", min(count, run.recipe.export.measured_images, RegionEvidenceOptions().images), "regions")
    yield Work("export", _CHECKED, "serving size")


def _checkpoints(run: Run, network: nn.Module, stages: list[Stage]) -> int:
    """Weights and two moments of each, twice while the next one is written; and those that stay."""
    size: int = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    every = run.recipe.train.checkpoint_every
    return 3 * size * (2 + (sum(stage.steps for stage in stages) // every if every else 0))
