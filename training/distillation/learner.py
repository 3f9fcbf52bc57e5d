"""A small CNN that learns what a teacher says of images, and what is exported of it.

Knows nothing of how a teacher came about, nor of bundles' files.

Source: soft labels from Hinton et al., Distilling the Knowledge in a Neural Network (arXiv:1503.02531), place by place.
Both networks' similarities are sharpened alike before the softmax, so that the student learns the teacher's
similarities themselves (up to what all clusters of a place share): its margins, and its probabilities at the teacher's
temperature, mean what the teacher's mean.
"""

import math
from dataclasses import replace

from torch import nn

from models.errors import UsageError
from models.nets.backbone import CnnBackbone
from models.nets.build import build
from models.nets.encoder import Encoder
from models.terminal.progress import say
from training.config.recipe import Recipe, StudentSection
from training.config.run import Run, resume_command
from training.data.images import Images
from training.discovery.segmenter import Segmenter
from training.discovery.student import DistillOptions, Student
from training.distillation.lessons import Lessons, size_of, split
from training.distillation.teacher import Teacher
from training.pretraining.options import PretrainOptions
from training.pretraining.pretraining import pretrain
from training.pretraining.weights import options_for
from training.trainer import batch_norm, loop
from training.trainer.loop import Workspace
from training.trainer.seeds import seeded
from training.trainer.stage import Stage

FILE = "student.safetensors"  # what it began with, where that was pretrained here
STAGE = "student"
_LEAST_STEPS, _MOST_STEPS, _EPOCHS = 400, 6000, 30
_SMALL_CNNS = "resnet10t, resnet18, mobilenetv3_small_100"


def learn(teacher: Teacher, lessons: Lessons, run: Run) -> tuple[Segmenter, float]:
    """The student, once it has learned, and the seconds of that; interrupted, the same call goes on."""
    section = run.recipe.student
    weights = section.weights if section.weights != "regions" else pretrained(run)
    student = untrained(run, teacher.k, teacher.bundle.manifest.code.dim, weights)
    batch_norm.synchronize(student)
    student.train()
    seconds = loop.fit(student, [stage(student, lessons, run)], run, name=STAGE)
    student.eval()
    centroids = student.unit_centroids().detach().cpu()
    return Segmenter(encoder(student), centroids, "cosine", teacher.bundle.manifest.code.temperature), seconds


def backbone_of(section: StudentSection, weights: str) -> CnnBackbone:
    """The student's CNN. Raises UsageError where the name is of another network, BackboneError."""
    built = build(section.backbone, weights, levels=section.levels, neck=section.neck)
    if not isinstance(built, CnnBackbone) or built.neck is None:
        raise UsageError(
            f"the student is a CNN with maps at strides 4 to {2 << section.levels}, and {section.backbone} is none:"
            f" set student.backbone to one, for instance {_SMALL_CNNS}"
        )
    return built


def untrained(run: Run, k: int, dim: int, weights: str) -> Student:
    """The student of a teacher with k clusters and a code of so many dimensions."""
    section = run.recipe.student
    with seeded(run.recipe.seed):
        backbone = backbone_of(section, weights)
        columns = 2 if section.position else 0
        head = nn.Conv2d(backbone.channels, max(1, dim - columns), 1)
        network = Encoder(backbone, head, position=section.position)
        return Student(network, k).to(run.device)


def encoder(student: Student) -> Encoder:
    """Its network."""
    assert isinstance(student.network, Encoder)  # see `untrained`
    return student.network


def stage(student: Student, lessons: Lessons, run: Run) -> Stage:
    """The stage in which it learns."""
    return student.stage(
        lessons.images, lessons.soft, options(run, len(lessons.images)), run.recipe.seed, name=STAGE, code=lessons.code
    )


def options(run: Run, images: int) -> DistillOptions:
    """As the recipe says, in views a little smaller than the images."""
    section, (height, width) = run.recipe.student, size_of(run)
    cell = 4 << (section.levels - 1)
    smaller = (max(1, height * 4 // 5 // cell) * cell, max(1, width * 4 // 5 // cell) * cell)
    return DistillOptions(
        steps=section.steps or min(_MOST_STEPS, max(_LEAST_STEPS, math.ceil(_EPOCHS * images / section.batch_size))),
        lr=section.lr,
        batch_size=section.batch_size,
        scale=section.sharpness,
        weight_code=section.weight_code,
        views=DistillOptions().views.model_copy(update={"size": smaller}),
    )


def pretraining(recipe: Recipe, images: Images) -> PretrainOptions:
    """How a student is pretrained on its images, where student.weights says "regions"."""
    section = recipe.student
    own = {"backbone": section.backbone, "levels": section.levels, "dim": section.neck}
    return options_for(recipe, images).model_copy(update=own)


def pretrained(run: Run) -> str:
    """The file of the student's first weights, learned from regions of its images; it stays in the run."""
    file, section = run.folder / FILE, run.recipe.student
    if not file.exists():
        images, _ = split(run.images, section.held_out, section.images)
        chosen = pretraining(run.recipe, images)
        say(run.console, f"the student is pretrained on regions of its images first, {chosen.steps} steps")
        place = Workspace(
            file.with_suffix(".partial"), run.log, chosen.seed, run.console, resume_command(run.folder),
            events=run.events("student-pretraining"),
        )  # fmt: skip
        seen = replace(run, images=images)
        pretrain(seen.regions(chosen.regions, most=chosen.most_images), chosen, run.device, place, file)
    return str(file)
