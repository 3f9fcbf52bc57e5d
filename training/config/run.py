"""One training run: its recipe, its images, its folder, its device.

Knows nothing of methods. What a method may ask of its surroundings is here and nowhere else.

    RUN/run.json                 what was asked, of which images: what --resume is held to
    RUN/recipe.toml              the recipe with every value spelled out; `--recipe` takes it
    RUN/skipped.txt              images that could not be read, one a line, with the reason
    RUN/train.log                what the console showed, with the time of day
    RUN/metrics.jsonl            losses and speed
    RUN/tensorboard/, previews/  the same for TensorBoard; a few images beside their maps as training goes on
    RUN/checkpoints/             last.safetensors: weights, optimizer, random generators
    RUN/cache/                   features, neighbors, regions; may be deleted
    RUN/cache/facts/             what its parts measured, for the report
    RUN/teacher/                 the bundle of what a student learns from, where the run has found it itself
    RUN/bundle/, report.html     the result
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from models.errors import UsageError
from models.files import write_atomically
from models.terminal import command_line
from models.terminal.progress import say
from training import distributed
from training.config import recipe as recipes
from training.config import run_folder
from training.config.recipe import Recipe
from training.data.duplicates import duplicates
from training.data.images import Images
from training.data.regions import RegionCache, RegionOptions, open_regions, thinned

# Of the recipe, what may change when a run goes on: nothing that was learned depends on it.
_FREE = ("workers", "export.", "train.")


@dataclass(frozen=True)
class Run:
    """What every part of the training shares.

    folder   where the run writes; `cache` below it keeps features, neighbors and regions between runs
    """

    recipe: Recipe
    images: Images
    folder: Path
    device: torch.device
    console: Console

    @property
    def cache(self) -> Path:
        """Folder for what is computed once (features, neighbors, regions)."""
        path = self.folder / "cache"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def log(self) -> Path:
        """The log of all its stages."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of its checkpoints; `last.safetensors` is the one that training goes on from."""
        return self.folder / "checkpoints"

    def events(self, name: str) -> Path:
        """Folder of TensorBoard's events of the training whose checkpoint has that name."""
        return self.folder / "tensorboard" / ("training" if name == "last" else name)

    def regions(self, options: RegionOptions, *, most: int | None = None) -> RegionCache:
        """Its images cut into regions, from disk where they are there; of more than `most`, that many drawn evenly."""
        paths, folder, read = thinned(self.images.paths, most), self.cache / "regions", self.images.read
        options = options.model_copy(update={"bands": self.images.bands})
        with distributed.main_first():
            return open_regions(paths, options, folder, self.console, workers=self.recipe.workers, read=read)

    def write_facts(self) -> None:
        """run.json, recipe.toml and skipped.txt: before the first step, and when a run goes on with what may change."""
        facts = {
            "data": {
                "folders": [str(root) for root in self.images.names.roots],
                "digest": self.images.digest,
                "images": len(self.images),
            },
            "recipe": recipes.page_of(self.recipe),
        }
        lines = [f"{self.images.names.of(s.path)}\t{s.reason}\n" for s in self.images.skipped]
        write_text(self.folder / "recipe.toml", recipes.encode(self.recipe))
        write_text(self.folder / "skipped.txt", "".join(lines))
        self._write_folder_facts()
        write_text(self.folder / run_folder.FACTS, json.dumps(facts, indent=1))  # last: its presence says the run began

    def _write_folder_facts(self) -> None:
        """RUN/cache/facts/folder.json, for the report: what lies beside the images, and copies among them."""
        if copies := duplicates(self.images):
            count, first = sum(map(len, copies)) - len(copies), " and ".join(copies[0][:2])
            say(self.console, f"copies among the images: {count} ({first}, for instance); what they show counts twice")
        (self.cache / "facts").mkdir(exist_ok=True)
        found = {"left_out": dict(self.images.left_out), "duplicates": copies}
        write_text(self.cache / "facts" / "folder.json", json.dumps(found, indent=1))


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all; what it says of files may hold names that are no UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode(errors="surrogateescape")))


def resume_command(folder: Path) -> str:
    """What goes on with the run of a folder."""
    return command_line.command("train", "--out", folder, "--resume")


def require_resumable(before: Recipe, asked: Recipe, folder: Path) -> None:
    """Raises UsageError when a run would go on with a recipe that learns something else; names what differs.

    before  the recipe that the run began with
    """
    differences = [one for one in before.differences(asked) if not one.startswith(_FREE)]
    if not differences:
        return
    if [one.partition(":")[0] for one in differences] == ["clusters.k"]:
        how = "make another number of clusters of it: "
        how += command_line.command("recluster", folder, "--k", asked.clusters.k)
    else:
        anew = ("--recipe", folder / "recipe.toml", "--data", "PHOTOS", "--out", "NEW")
        how = f"train anew: {command_line.command('train', *anew)} --set …"
    raise UsageError(
        f"the run was begun with {'; '.join(differences)}. --resume goes on with what was learned, so that only"
        f" {', '.join(name.removesuffix('.') for name in _FREE)} may change: leave the rest out; or {how}"
    )


def folders_of(data: dict[str, Any]) -> list[Path]:
    """The folders of images that a run began with, of "data" of its facts; until 0.3 there was one."""
    return [Path(folder) for folder in data.get("folders") or [data["folder"]]]


def require_same_images(data: dict[str, Any], images: Images) -> None:
    """Raises UsageError when a run would go on with other images. data: of the facts that it began with."""
    if data["digest"] != images.digest:
        where = f"{' and '.join(map(str, folders_of(data)))} with {data['images']} images"
        raise UsageError(
            f"the run was started on {where}; of {images.names} there are now {len(images)} images of other names or"
            " sizes: a run goes on with the images it began with"
        )
