"""Any folder of images, searched to the bottom.

Knows nothing of labels or splits: every image below the folder is used, whatever its folder is called.
"""

from pathlib import Path

from training.data.files import walk
from training.data.images import Found


def find(folder: Path, split: str) -> Found:
    """Every image below the folder."""
    return Found(walk(folder))
