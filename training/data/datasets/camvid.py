"""CamVid with eleven classes: frames from four drives, 480×360.

Knows nothing of how it is scored. Layout: images/{train,val,test}/*.jpg and labels/{train,val}/*.png,
paired by stem. A frame's drive is the part of its name before the underscore; splits made by drive
tell more than the official val, which shares its drives with train.
"""

from pathlib import Path

from models.io.walker import walk
from training.data.errors import DataError
from training.data.files import by_stem
from training.data.images import Found

_NAMES = "sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist"
CLASS_NAMES = tuple(_NAMES.split(", "))
SPLITS = ("train", "val", "test")


def drive(path: Path) -> str:
    """Which drive a frame belongs to: "0001TP", "0006R0", "0016E5" or "Seq05VD"."""
    return path.stem.split("_")[0]


def find(folder: Path, split: str) -> Found:
    """Frames of "train", "val" or "test"; "train/0006R0" is one drive of a split, "train/-0006R0" the others."""
    name, _, wanted = split.partition("/")
    if name not in SPLITS:
        raise DataError(f"CamVid has no split {name!r}: there are {', '.join(SPLITS)}")
    images = folder / "images" / name
    if not images.is_dir():
        raise DataError(f"{images} is missing; CamVid is laid out as images/{name}/*.jpg and labels/{name}/*.png")
    paths = list(walk(images))
    drives = sorted({drive(path) for path in paths})
    if wanted and wanted.removeprefix("-") not in drives:
        raise DataError(f"CamVid {name} has no drive {wanted.removeprefix('-')!r}: there are {', '.join(drives)}")
    if wanted.startswith("-"):
        paths = [path for path in paths if drive(path) != wanted[1:]]
    elif wanted:
        paths = [path for path in paths if drive(path) == wanted]
    maps = by_stem(folder / "labels" / name)
    return Found(paths, {p: maps[p.stem] for p in paths if p.stem in maps}, CLASS_NAMES)
