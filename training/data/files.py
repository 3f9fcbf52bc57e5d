"""Files of a data set: found, sorted as people number them, paired by stem.

Knows nothing of pixels.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.io.decode import SUFFIXES
from training.data.errors import DataError


def natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which frame_9 comes before frame_10."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p)


def walk(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Every image file below a folder, in natural order; hidden files and folders are left out."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith((".", "__"))]
        found += [Path(where, f) for f in files if Path(f).suffix.lower() in suffixes and not f.startswith(".")]
    return sorted(found, key=lambda path: (natural(path.relative_to(folder)), str(path)))


def by_stem(folder: Path, suffixes: Sequence[str] = SUFFIXES, *, end: str = "") -> dict[str, Path]:
    """The files below a folder by their stems, those alone that end in `end`, which is cut off; {} without a folder."""
    return {path.stem.removesuffix(end): path for path in walk(folder, suffixes) if path.stem.endswith(end)}


def listed(list_file: Path, files: Mapping[str, Path]) -> dict[str, Path]:
    """The files a published list names, one stem a line, in its order. Raises DataError when some are missing."""
    lines = list_file.read_text(encoding="utf-8").split()
    stems = list(dict.fromkeys(Path(line).stem for line in lines))
    if missing := [stem for stem in stems if stem not in files]:
        raise DataError(
            f"{list_file} names {len(stems)} images, and {len(missing)} of them are not there, for instance"
            f" {', '.join(missing[:3])}: unpack the whole set, or shorten the list"
        )
    return {stem: files[stem] for stem in stems}
