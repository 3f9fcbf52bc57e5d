"""What to type next: every command of a finished run, with what it does.

Knows nothing of pages or of what was found.
"""

from pathlib import Path
from typing import NamedTuple

from models.terminal.command_line import command
from training.config.run import Run, resume_command

_MOST = 255  # clusters


class Step(NamedTuple):
    """A sentence, and the command that does it."""

    what: str
    command: str


def next_steps(run: Run, bundle: Path, folder: Path, *, option: str = "", k: int | None = None) -> list[Step]:
    """What people do with a run: serve it, choose K, measure it, begin anew, make the page again.

    folder  of the run, where people have it
    option  of the recipe that would help, as --set takes it; empty: another number of clusters
    k       the number of clusters that was proposed, if one was
    """
    dataset, photos = run.recipe.dataset, [part for root in run.images.names.roots for part in ("--data", root)]
    other = min(_MOST, 3 * run.recipe.clusters.count // 2)
    labels = ("--labels", "LABEL_MAPS") if dataset == "folder" else ("--dataset", dataset)
    value = "student.backbone=resnet18" if run.recipe.student.teacher else f"clusters.k={k or other}"
    anew = ("--recipe", folder / "recipe.toml", *photos, "--out", f"{folder}-2")
    return [
        Step("Try it on photos in the browser, and give the clusters names", command("serve", "--bundle", bundle)),
        Step(
            "Another number of clusters from stored codes, or auto: a new bundle without training",
            command("recluster", folder, "--k", k or "auto"),
        ),
        Step(
            "Where you have label maps: mIoU, accuracy, a page",
            command("evaluate", folder, *photos, *labels),
        ),
        Step(
            "Train anew on the same photos with another value; all of them are in the recipe at the end",
            command("train", *anew, "--set", option or value),
        ),
        Step("Make the bundle and this page again; a stopped run goes on where it was", resume_command(folder)),
    ]
