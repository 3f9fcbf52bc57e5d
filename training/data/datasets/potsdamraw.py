"""Potsdam with three classes, cut by STEGO's script: all 38 tiles, 15×15 patches of each, and no list.

Knows nothing of how it is scored. Layout: imgs/TILE_ROW_COLUMN.mat and gt/ alike, as `potsdam` has them, in the folder
that --data names or in potsdamraw/processed or processed below it. Every split is all of them.

Source: STEGO (arXiv:2203.08414), its class PotsdamRaw.
"""

from pathlib import Path

from training.data.datasets import potsdam
from training.data.errors import DataError
from training.data.files import by_stem
from training.data.images import Found

SPLITS = ("train", "val", "all")


def find(folder: Path, split: str) -> Found:
    """All patches, whatever the split."""
    if split not in SPLITS:
        raise DataError(f"potsdamraw has no split {split!r}: there are {', '.join(SPLITS)}, each all of them")
    roots = (folder, folder / "processed", folder / "potsdamraw" / "processed")
    root = next((root for root in roots if (root / "imgs").is_dir()), None)
    if root is None:
        raise DataError(f"{folder} holds no imgs; potsdamraw is laid out as imgs/*.mat and gt/*.mat, in processed/")
    return potsdam.labelled(root, by_stem(root / "imgs", potsdam.SUFFIXES))
