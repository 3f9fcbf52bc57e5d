"""Backbone weights "auto": from timm's hub where it answers, else pretrained on the images themselves.

Knows nothing of methods. What was settled is written to the run, so that resuming does not depend on the network
of the day.
"""

import threading
from pathlib import Path

import huggingface_hub
import timm

from models.errors import UsageError
from models.nets import licences
from models.nets.build import require_known
from models.terminal.progress import say
from training import distributed
from training.config.recipe import BackboneSection, Recipe
from training.config.run import Run, resume_command
from training.data.images import Images
from training.data.regions import RegionOptions
from training.pretraining.options import PretrainOptions
from training.pretraining.pretraining import pretrain
from training.trainer.loop import Workspace

_PATIENCE_S = 8.0  # for the hub's answer; a firewall that drops packets would otherwise take minutes
FILE = "backbone.safetensors"
_WORDS = ("auto", "timm", "random")  # that name no file
_answers: dict[tuple[Path, str], bool] = {}  # of the hub, for one run's file and network


def settle(run: Run) -> BackboneSection:
    """The backbone to use, with weights that this machine has or can fetch; what their licence asks is told.

    "auto" becomes "timm", or a small network trained on the run's images and kept in RUN/backbone.safetensors.
    """
    asked = run.recipe.backbone
    found = asked if asked.weights != "auto" else _found(asked, run)
    if found.weights != "random" and not found.weights.endswith(FILE) and (asks := licences.terms(found.name)):
        say(run.console, f"the licence of {found.name}'s weights, {asks}")
    return found


def _found(asked: BackboneSection, run: Run) -> BackboneSection:
    file = run.folder / FILE
    options = distributed.from_main(lambda: first(run))
    if options is None and not file.exists():
        return asked.model_copy(update={"weights": "timm"})
    if options is not None:
        say(
            run.console,
            f"{asked.name} is neither here nor at a hub that answers: a small {options.backbone} is pretrained on"
            f" your images first, {options.steps} steps (--set backbone.weights=FILE to use other weights)",
        )
        place = Workspace(
            file.with_suffix(".partial"), run.log, options.seed, run.console, resume_command(run.folder),
            events=run.events("pretraining"),
        )  # fmt: skip
        pretrain(run.regions(options.regions, most=options.most_images), options, run.device, place, file)
    small = options_for(run.recipe, run.images).backbone
    return asked.model_copy(update={"name": small, "weights": str(file.resolve())})


def require_usable(asked: BackboneSection) -> None:
    """Raises BackboneError for a name that timm does not know, UsageError for weights that are no file."""
    require_known(asked.name)
    if asked.weights not in _WORDS and not Path(asked.weights).is_file():
        raise UsageError(
            f"backbone.weights {asked.weights}: there is no such file; give a .safetensors or .pth file, or one of"
            f" {', '.join(_WORDS)}"
        )


def first(run: Run) -> PretrainOptions | None:
    """The pretraining that "auto" begins with, None where there is none to do. The hub is asked once for a run."""
    name, file = run.recipe.backbone.name, run.folder / FILE
    if run.recipe.backbone.weights != "auto" or file.exists():
        return None
    if (file, name) not in _answers:
        _answers[file, name] = hub_has(name)
    return None if _answers[file, name] else options_for(run.recipe, run.images)


def options_for(recipe: Recipe, images: Images) -> PretrainOptions:
    """Options suited to so many images: of 50 photos, every one is seen thirty times in 120 steps."""
    steps = max(120, min(600, 2 * len(images)))
    regions = RegionOptions(bands=images.bands)
    return PretrainOptions(steps=steps, batch_size=max(4, min(12, len(images))), seed=recipe.seed, regions=regions)


def hub_has(name: str, patience_s: float = _PATIENCE_S) -> bool:
    """Whether timm can load this network's weights: from this machine's cache, or from a hub that answers in time."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        return False
    repository, file = config.hf_hub_id, "model.safetensors"
    if isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str):
        return True
    answers: list[bool] = []

    def ask() -> None:
        try:
            url = huggingface_hub.hf_hub_url(repository, file)
            answers.append(huggingface_hub.get_hf_file_metadata(url, timeout=patience_s).size is not None)
        except Exception:  # no network, no such file, a proxy's page: all of them mean no
            answers.append(False)

    asking = threading.Thread(target=ask, daemon=True)  # name lookups have no timeout of their own
    asking.start()
    asking.join(patience_s)
    return bool(answers) and answers[0]
