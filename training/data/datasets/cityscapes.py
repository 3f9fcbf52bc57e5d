"""Cityscapes with 27 classes, or the 19 of its benchmark: street scenes of 50 cities, 2048×1024.

Knows nothing of how it is scored. Layout, as the set's own archives unpack:

    leftImg8bit/{train,val,test,train_extra}/CITY/CITY_000000_000019_leftImg8bit.png
    gtFine/{train,val,test}/CITY/CITY_000000_000019_gtFine_labelIds.png
    gtCoarse/{train,val,train_extra}/CITY/CITY_000000_000019_gtCoarse_labelIds.png

The 27 classes are label ids 7 to 33, the 19 those of them that the benchmark evaluates; every other id is ignored.
Coarse maps are read of frames that have no fine one, as those of train_extra. The maps of test hold no classes.

STEGO and CAUSE train on train and report on val (500 images). PiCIE trains on "test+train_extra" and reports
on "val+train" (3475): its figures are not of the same images.
"""

from pathlib import Path

from training.data.class_table import ClassTable
from training.data.errors import DataError
from training.data.files import by_stem
from training.data.images import Found
from training.data.label_maps import IGNORED

SPLITS = ("train", "val", "test", "train_extra")
VARIANTS = ("27", "19")
_NAMES = (
    "road, sidewalk, parking, rail track, building, wall, fence, guard rail, bridge, tunnel, pole, polegroup,"
    " traffic light, traffic sign, vegetation, terrain, sky, person, rider, car, truck, bus, caravan, trailer, train,"
    " motorcycle, bicycle"
)
CLASS_NAMES = tuple(_NAMES.split(", "))
FIRST_ID = 7
# Source: the authors' cityscapesScripts, the ids that have a train id.
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
IMAGE_END, LABELS_END, COARSE_END = "_leftImg8bit", "_gtFine_labelIds", "_gtCoarse_labelIds"


def find(folder: Path, split: str, variant: str = "27") -> Found:
    """Frames of "train", "val", "test" or "train_extra", with their fine label maps, or coarse ones."""
    if split not in SPLITS:
        raise DataError(f"Cityscapes has no split {split!r}: there are {', '.join(SPLITS)}; join two by a +")
    images = by_stem(folder / "leftImg8bit" / split, end=IMAGE_END)
    if not images:
        raise DataError(
            f"no *{IMAGE_END}.png below {folder / 'leftImg8bit' / split}; Cityscapes is laid out as"
            f" leftImg8bit/{split}/CITY/*{IMAGE_END}.png and gtFine/{split}/CITY/*{LABELS_END}.png,"
            " and --data names the folder that holds leftImg8bit"
        )
    fine = by_stem(folder / "gtFine" / split, end=LABELS_END)
    coarse = by_stem(folder / "gtCoarse" / split, end=COARSE_END)
    maps = coarse | fine
    labels = {path: maps[frame] for frame, path in images.items() if frame in maps}
    rough = sum(frame in coarse and frame not in fine for frame in images)
    notes = (f"of {rough} frames of {split} the label maps are coarse ones",) if rough else ()
    ids = EVALUATED if variant == "19" else range(FIRST_ID, FIRST_ID + len(CLASS_NAMES))
    table = ClassTable({one: i for i, one in enumerate(ids)}, others=IGNORED)
    names = tuple(CLASS_NAMES[one - FIRST_ID] for one in ids)
    return Found(list(images.values()), labels, names, table, notes=notes)
