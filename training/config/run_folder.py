"""A run's folder: begun, gone on with, overwritten; what in it a run has made.

Knows nothing of recipes or images.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from models import lock
from models.errors import UsageError

FACTS = "run.json"
_EARLIER_BACKBONE = {"family": "dino"}  # whose conventions 0.3 took for all weights: what it began goes on as it began
_EARLIER_DATA = {"label_maps": "as_photos"}  # which 0.3 took them for
_EARLIER_NAMES = {  # of 0.3's files
    "log.jsonl": "metrics.jsonl",
    "checkpoint.safetensors": "checkpoints/last.safetensors",
    "consensus.safetensors": "checkpoints/consensus.safetensors",
}
_WORK = (
    "metrics.jsonl", "backbone.partial", "backbone.safetensors", "teacher", "student.partial", "student.safetensors",
    "bundle", "report.html",
)  # fmt: skip
_MADE = {
    *_WORK, *_EARLIER_NAMES, FACTS, "recipe.toml", "skipped.txt", "train.log", "tensorboard", "previews",
    "checkpoints", "cache", "evaluation", lock.NAME,
}  # fmt: skip
_RECLUSTERED = re.compile(r"bundle-k(\d+|auto)(\.html)?")  # tessera recluster's
_SCRATCH = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}")  # a file under way when its process was killed


def begun(folder: Path) -> dict[str, Any] | None:
    """The facts of the run that began in a folder, None where none did. What 0.3 left gets the names of today.

    Raises UsageError: they are damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        found["recipe"]["backbone"] = _EARLIER_BACKBONE | found["recipe"]["backbone"]
        found["recipe"]["data"] = _EARLIER_DATA | found["recipe"].get("data", {})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{folder / FACTS} is damaged: name another --out, or add --overwrite to begin anew") from None
    for before, now in _EARLIER_NAMES.items():
        if (folder / before).exists() and not (folder / now).exists():
            (folder / now).parent.mkdir(exist_ok=True)
            os.replace(folder / before, folder / now)
    return found


def worked(folder: Path) -> bool:
    """Whether anything was done in it that a new run would lose: what --init brought along is elsewhere too."""
    brought = (folder / "checkpoints" / "init.safetensors").exists()
    made = [*_EARLIER_NAMES, *(name for name in _WORK if not (brought and name == "backbone.safetensors"))]
    if any((folder / name).exists() for name in made):
        return True
    kept = [*(folder / "cache").glob("*"), *(folder / "checkpoints").glob("*")]
    return not all(path.name in ("facts", "init.safetensors") or _is_index(path) for path in kept)


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raises UsageError unless a new run may begin in a folder: new, empty, or with a run in it that did nothing yet.

    overwrite  a run that did something may go as well; nothing else ever does
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder as --out")
    others = sorted(path.name for path in folder.iterdir() if not _is_made(path.name))
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        removed = "; --overwrite removes only what a run has made" if overwrite else ""
        raise UsageError(
            f"{folder} is not empty: it holds {', '.join(others[:3])}{more}, which no run made{removed}: name a new"
            " folder as --out"
        )
    ours = (folder / FACTS).is_file() or not any(path.name != lock.NAME for path in folder.iterdir())
    if not ours and not _is_left(folder):
        raise UsageError(f"{folder} is not empty, and holds no {FACTS} that says a run made it: name a new --out")
    if worked(folder) and not overwrite:
        raise UsageError(
            f"{folder} holds a run already: add --resume to go on with it, --overwrite to remove it and begin anew,"
            " or name another --out"
        )


def _is_left(folder: Path) -> bool:
    """Whether a folder without its facts is what a removal or a beginning left that was cut short."""
    cut_short = {"recipe.toml", "skipped.txt", "train.log", lock.NAME}
    if all(map(_is_index, (folder / "cache").glob("*"))):
        cut_short.add("cache")
    return {path.name for path in folder.iterdir()} <= cut_short


def _is_index(path: Path) -> bool:
    """What remembers which images can be read, for whatever run is next."""
    return path.name.startswith("images.sqlite3")


def clear(folder: Path) -> None:
    """Removes what a run has made, but its lock and what it remembers of the images' files. The facts go last.

    Links are removed, and not what they lead to.
    """
    for path in sorted(folder.iterdir(), key=lambda path: path.name == FACTS):
        if path.name == lock.NAME or not _is_made(path.name):
            continue
        if path.name == "cache" and not path.is_symlink():
            for inner in path.iterdir():
                if not _is_index(inner):
                    shutil.rmtree(inner) if inner.is_dir() and not inner.is_symlink() else inner.unlink()
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_made(name: str) -> bool:
    scratch = _SCRATCH.fullmatch(name)
    known = scratch["name"] if scratch else name
    return known in _MADE or _RECLUSTERED.fullmatch(known) is not None
