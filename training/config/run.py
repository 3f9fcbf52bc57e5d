"""One training run: its recipe, its images, its folder, its device.

Knows nothing of methods. What a method may ask of its surroundings is here and nowhere else.

    RUN/run.json                 what was asked, of which images: what --resume is held to
    RUN/recipe.toml              the recipe with every value spelled out; `--recipe` takes it
    RUN/skipped.txt              images that could not be read, one a line, with the reason
    RUN/log.jsonl                losses and speed
    RUN/checkpoint.safetensors   weights, optimizer, random generators
    RUN/cache/                   features, neighbors, regions; may be deleted
    RUN/bundle/, report.html     the result
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from models.errors import UsageError
from models.files import write_atomically
from training.config import recipe as recipes
from training.config.recipe import Recipe
from training.data.duplicates import duplicates
from training.data.images import Images
from training.data.regions import RegionCache, RegionOptions, open_regions, thinned
from training.progress import say

_EARLIER = {"family": "dino"}  # whose conventions 0.3 took for all weights: what it began goes on as it began

_EARLIER_DATA = {"label_maps": "as_photos"}  # which 0.3 took them for


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
        return self.folder / "log.jsonl"

    def regions(self, options: RegionOptions, *, most: int | None = None) -> RegionCache:
        """Its images cut into regions, from disk where they are there; of more than `most`, that many drawn evenly."""
        paths, folder, read = thinned(self.images.paths, most), self.cache / "regions", self.images.read
        options = options.model_copy(update={"bands": self.images.bands})
        return open_regions(paths, options, folder, self.console, workers=self.recipe.workers, read=read)

    def write_facts(self) -> None:
        """run.json, recipe.toml and skipped.txt. Done once, before the first step."""
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
        write_text(self.folder / "run.json", json.dumps(facts, indent=1))  # last: its presence says the run began

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
    return f"python training/train.py --out {shlex.quote(str(folder))} --resume"


def begin(folder: Path, *, resume: bool) -> dict[str, Any] | None:
    """Makes a run's folder; answers with the facts of the run that began there, None for a new one.

    Raises UsageError: a folder in use without --resume, or --resume where there is nothing to go on with.
    """
    facts = folder / "run.json"
    if resume:
        if not facts.is_file():
            raise UsageError(f"{folder} holds no run to go on with; leave --resume out to start one")
        found: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
        found["recipe"]["backbone"] = _EARLIER | found["recipe"]["backbone"]
        found["recipe"]["data"] = _EARLIER_DATA | found["recipe"].get("data", {})
        return found
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if facts.is_file():
            raise UsageError(f"{folder} holds a run already: add --resume to go on with it, or name another --out")
        raise UsageError(f"{folder} is not empty: name a new folder as --out")
    folder.mkdir(parents=True, exist_ok=True)
    return None


def folders_of(data: dict[str, Any]) -> list[Path]:
    """The folders of images that a run began with, of "data" of its facts; until 0.3 there was one."""
    return [Path(folder) for folder in data.get("folders") or [data["folder"]]]


def require_same(data: dict[str, Any], before: Recipe, run: Run) -> None:
    """Raises UsageError when a run would go on with another recipe or other images; names what differs.

    data, before  "data" of the facts that the run began with, and its recipe then
    """
    if differences := before.differences(run.recipe):
        raise UsageError(
            f"the run was started with another recipe ({'; '.join(differences)}): --resume without --recipe,"
            " --method and --set goes on as it began; for another recipe name a new --out"
        )
    images = run.images
    if data["digest"] != images.digest:
        where = f"{' and '.join(map(str, folders_of(data)))} with {data['images']} images"
        raise UsageError(
            f"the run was started on {where}; of {images.names} there are now {len(images)} images of other names or"
            " sizes: a run goes on with the images it began with"
        )
