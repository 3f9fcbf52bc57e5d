"""What --teacher and --student ask for, as values of a recipe; and what cannot be had, said before a photo is read.

Knows nothing of how anything is learned.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from models.bundle import Bundle
from models.errors import UsageError
from models.nets.backbone import BackboneError
from models.nets.build import require_known
from training import methods
from training.config.recipe import Recipe, StudentSection
from training.distillation.learner import backbone_of

_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt")
_WORDS = ("random", "regions", "timm")  # of student.weights, that name no file


def values(teacher: str, student: str, given: Sequence[str]) -> list[str]:
    """Values of the recipe, as --set takes them, that the two flags stand for; an empty one stands for nothing.

    teacher  a file of weights, a name of timm's, or a folder with a bundle, or with a run that has made one
    given    by --set: where a backbone's weights or name are among them, they stay as they are

    Raises UsageError, BundleError, BackboneError.
    """
    found = [_value("student.backbone", student)] if student else []
    set_already = {one.partition("=")[0].strip() for one in given}
    path = Path(teacher)
    if not teacher:
        return found
    if path.is_dir():
        return [*found, _value("student.teacher", str(find(path).path.resolve()))]
    if path.is_file():
        name = _name_in(path)
        named = [_value("backbone.name", name)] if name and "backbone.name" not in set_already else []
        return [*found, *named, _value("backbone.weights", str(path.resolve()))]
    if path.suffix in _WEIGHTS or len(path.parts) > 1:
        raise UsageError(f"--teacher {teacher}: there is no such file or folder")
    _require_known("--teacher", teacher, "neither a file, nor a folder, nor one of timm's")
    # The hub's, and nothing in their place where it does not answer: a teacher was named.
    weights = [] if "backbone.weights" in set_already else [_value("backbone.weights", "timm")]
    return [*found, _value("backbone.name", teacher), *weights]


def find(given: Path) -> Bundle:
    """The bundle in a folder, or the one of a run's folder. Raises UsageError, BundleError."""
    if (given / "manifest.json").is_file():
        return Bundle.load(given)
    if (given / "bundle").is_dir():
        return Bundle.load(given / "bundle")
    if not given.is_dir():
        raise UsageError(f"the teacher {given}: there is no such folder; name a bundle's, or a run's that has made one")
    if (given / "run.json").is_file():
        raise UsageError(f"the teacher {given} has no bundle yet: let its training end first")
    raise UsageError(
        f"the teacher {given} holds neither a bundle nor a run: name the folder of one, or a file of weights"
    )


def page_for(bundle: Bundle) -> dict[str, Any]:
    """The recipe's page for the student of a finished bundle: nothing but what the bundle settles."""
    manifest = bundle.manifest
    side = max(32, min(2048, min(manifest.input.size) // 2 * 2))  # what a recipe takes
    page: dict[str, Any] = {"input": {"size": side}, "clusters": {"k": len(manifest.clusters)}}
    if manifest.input.bands:
        page["data"] = {"bands": list(manifest.input.bands)}
    if manifest.method in methods.names():
        page["method"] = manifest.method
    return page


def require_usable(recipe: Recipe, teacher: str = "") -> None:
    """Raises UsageError, BundleError or BackboneError where a recipe's student or its teacher cannot be had.

    teacher  the flag
    """
    section = recipe.student
    if not section.backbone:
        if section.teacher or teacher:
            raise UsageError("a teacher without a student: add --student NAME, a small CNN, for instance resnet10t")
        return
    _require_known("student.backbone", section.backbone, "not one of timm's")
    _require_weights(section)
    backbone_of(section, "random")
    if section.teacher:
        _require_agreeing(find(Path(section.teacher)), recipe)


def _require_known(what: str, name: str, why: str) -> None:
    try:
        require_known(name)
    except BackboneError as error:
        near = str(error).rpartition("; ")[2] if "; " in str(error) else "take one of the families in docs/backbones.md"
        raise UsageError(f"{what} {name}: {why}; {near}") from None


def _require_weights(section: StudentSection) -> None:
    if section.weights not in _WORDS and not Path(section.weights).is_file():
        raise UsageError(
            f"student.weights {section.weights}: there is no such file; give a .safetensors or .pth file, or one of"
            f" {', '.join(_WORDS)}"
        )


def _require_agreeing(bundle: Bundle, recipe: Recipe) -> None:
    """Raises UsageError where a recipe asks for what a finished teacher does not give."""
    k = len(bundle.manifest.clusters)
    if recipe.clusters.k != k:
        raise UsageError(
            f"the teacher {bundle.ref} has {k} clusters, and so has whoever learns from it; clusters.k asks for"
            f" {recipe.clusters.k}: leave it out, or make a teacher of that many first (tessera recluster RUN --k"
            f" {recipe.clusters.k})"
        )
    bands = bundle.manifest.input.bands or ()
    if recipe.data.bands != bands:
        raise UsageError(
            f"the teacher {bundle.ref} reads bands {list(bands) or 'as each file says'}, and data.bands asks for"
            f" {list(recipe.data.bands) or 'as each file says'}: leave data.bands out"
        )
    if recipe.export.align_to:
        raise UsageError(
            f"the student keeps ids, names and colors of its teacher {bundle.ref}: leave --align-to out, or align the"
            " teacher first (tessera recluster RUN --k K --align-to BUNDLE)"
        )


def _value(key: str, value: str) -> str:
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _name_in(path: Path) -> str:
    """timm's name of the network in a file that was pretrained here; empty: the file does not tell."""
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("backbone", ""))
    except (SafetensorError, OSError):
        return ""
