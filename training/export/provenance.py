"""What a bundle is called, where it comes from, under which licences.

Knows nothing of networks.
"""

import re
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from models import bundle_files
from models.bundle import Bundle
from models.manifest import Provenance
from models.nets import licences
from training.config import recipe as recipes
from training.config.run import Run
from training.pretraining import weights as pretrained

_TEXT = 4096  # characters of a manifest's texts


@dataclass(frozen=True)
class Origin:
    """What a bundle is called and where it comes from."""

    name: str
    method: str
    provenance: Provenance
    notice: str


def origin(run: Run, teacher: Bundle | None = None) -> Origin:
    """Of what a run made. teacher: from which it was learned; None: from none."""
    if teacher is None:
        return Origin(bundle_name(run), run.recipe.method, provenance(run), notice(run))
    found = provenance(run).model_copy(update={"licence": licence_of_student(run, teacher)})
    return Origin(bundle_name(run), teacher.manifest.method, found, notice_of_student(run, teacher))


def bundle_name(run: Run) -> str:
    """export.name, or the data folder's name as a bundle can be called."""
    if run.recipe.export.name:
        return run.recipe.export.name
    return f"{plain_name(run.images.root.name) or 'images'}-{run.recipe.method}"[:63]


def plain_name(text: str) -> str:
    """The part of a text that a bundle can be called; may be empty."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63]


def tessera_version() -> str:
    """Of the installed package."""
    try:
        return version("tessera-segmentation")
    except PackageNotFoundError:
        return "unknown"


def licence(run: Run) -> str:
    """Of the pretrained weights: as the recipe says, or as timm knows it."""
    said, weights = run.recipe.export.licence, run.recipe.backbone.weights
    if said != "unknown":
        return said
    if weights == "random":
        return "none used: trained from random weights"
    if weights.endswith(pretrained.FILE):
        return "trained from random weights on the images themselves"
    name = run.recipe.backbone.name
    if weights == "timm" and (known := licences.licence_of(name)):
        return f"{known} ({name}, by timm)"
    if weights != "timm" and (asks := licences.terms(name)):
        return f"unknown; of what timm calls {name}, {asks}"
    return said


def licence_of_student(run: Run, teacher: Bundle) -> str:
    """Of the weights that a student began with, and of its teacher's."""
    weights, name = run.recipe.student.weights, run.recipe.student.backbone
    own = {
        "random": "none used, it began with random weights",
        "regions": "none used, it was pretrained on the images themselves",
        "timm": f"{licences.licence_of(name) or 'unknown'} ({name}, by timm)",
    }.get(weights, "unknown")
    return f"of the student's own first weights: {own}; of its teacher's: {teacher.manifest.provenance.licence}"[:_TEXT]


def provenance(run: Run) -> Provenance:
    """Where the bundle comes from. Paths of this machine are left out."""
    backbone = run.recipe.backbone
    backbone = backbone.model_copy(update={"weights": Path(backbone.weights).name})
    export = run.recipe.export
    export = export.model_copy(update={"align_to": Path(export.align_to).name})
    student = run.recipe.student
    names = {name: Path(getattr(student, name)).name for name in ("weights", "teacher")}
    student = student.model_copy(update=names)
    recipe = run.recipe.model_copy(update={"backbone": backbone, "export": export, "student": student})
    skipped = f", {len(run.images.skipped)} unreadable ones skipped" if run.images.skipped else ""
    return Provenance(
        tessera=tessera_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=recipes.page_of(recipe),
        recipe_sha256=recipe.sha256,
        seed=run.recipe.seed,
        images=len(run.images),
        data=f"{len(run.images)} images of {run.images.title}{skipped}",
        data_sha256=run.images.digest,
        licence=licence(run),
    )


def notice(run: Run) -> str:
    """The NOTICE file."""
    asks = licences.terms(run.recipe.backbone.name) if run.recipe.backbone.weights == "timm" else ""
    asks = f"That licence, {asks}.\n" if asks else ""
    return (
        f"Segmentation bundle {bundle_name(run)}, made by Tessera with the method {run.recipe.method}.\n\n"
        f"Pretrained weights: {run.recipe.backbone.name}, licence: {licence(run)}.\n"
        f"{asks}"
        f"{_of_images(run)}"
    )


def notice_of_student(run: Run, teacher: Bundle) -> str:
    """The NOTICE file of a bundle whose network learned another one's label maps: that one's own is in it."""
    name = run.recipe.student.backbone
    asks = licences.terms(name) if run.recipe.student.weights == "timm" else ""
    asks = f"The licence of {name}'s weights, {asks}.\n" if asks else ""
    theirs = bundle_files.read(teacher.path, "NOTICE").decode(errors="replace")
    return (
        f"Segmentation bundle {bundle_name(run)}, made by Tessera: a {name} that learned the label maps of the bundle"
        f" {teacher.ref} (method {teacher.manifest.method}), its teacher.\n\n"
        f"Licences of weights, {licence_of_student(run, teacher)}.\n"
        f"{asks}"
        "What a licence asks of what is made with the teacher's weights, it may ask of this bundle too.\n"
        f"{_of_images(run)}\n"
        f"The teacher's own notice:\n\n{textwrap.indent(theirs, '    ')}"
    )


def _of_images(run: Run) -> str:
    shown = "real patches of them" if run.recipe.export.exemplars else "no single one of them"
    return (
        f"Training images: {len(run.images)} of {run.images.title}, licence: whatever their owner gave."
        f" The bundle holds {shown}.\n"
    )
