"""Any folders of images, searched to the bottom.

Knows nothing of labels or splits: every image below the folders is used, whatever its folder is called.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from training.data.files import survey
from training.data.images import Found


def find(folder: Path, split: str) -> Found:
    """Every image below the folder."""
    return find_all([folder])


def find_all(folders: Sequence[Path], *, without: Collection[Path] = ()) -> Found:
    """Every image below the folders, but for those below `without`."""
    seen = survey(folders, without=without)
    notes = [f"{path}: the folder of a run or a bundle, whose pictures are no data" for path in seen.outputs]
    return Found(seen.files, notes=tuple(notes), left_out=seen.left_out, unusable=seen.unusable)
