"""What comes before training: the plan of a run and what its folder holds then, or what --dry-run shows in their place.

Knows nothing of how a run was asked for, or of training.
"""

import shutil
from pathlib import Path

from models.terminal import command_line
from models.terminal.progress import LoggedConsole, say, span, tell
from training.config import run_folder
from training.config.facts import note
from training.config.run import Run
from training.planning import picture, planner
from training.planning.plan import Plan
from training.pretraining import weights
from training.trainer import initial

_DRY_RUN_S, _MEASURED_S = 2.0, 0.0  # of measuring: where it is all that is done; before a run one call of each
_SKIPPED_SHOWN = 20  # by a dry run


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


def plan_of(run: Run, start: Path | None, *, seconds: float) -> Plan:
    """What the run takes. Raises TesseraError where it could not end, or the weights of `start` do not fit."""
    found = planner.make(run, init=start, seconds=seconds)
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
    picture.picture(run, file)
    tell(console, f"{picture.SHOWN} images as the network gets them: {file}")
    tell(console, f"nothing else was written; to begin: {command_line.again('train', without='--dry-run')}")


def keep_initial(run: Run, path: Path) -> None:
    """Copies the checkpoint that a run begins with, and the backbone that was trained for it, into the run's folder."""
    run.checkpoints.mkdir(exist_ok=True)
    shutil.copyfile(path, run.checkpoints / initial.FILE)
    if (backbone := initial.backbone(path)) and run.recipe.backbone.weights == "auto":
        shutil.copyfile(backbone, run.folder / weights.FILE)
