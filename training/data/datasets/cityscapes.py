"""Cityscapes with 27 classes: street scenes of 50 cities, 2048×1024.

Knows nothing of how it is scored. Layout, as the set's own archives unpack:

    leftImg8bit/{train,val,test,train_extra}/CITY/CITY_000000_000019_leftImg8bit.png
    gtFine/{train,val,test}/CITY/CITY_000000_000019_gtFine_labelIds.png

The classes are label ids 7 to 33; every other id is ignored. The maps of test hold no classes, and
train_extra has only coarse ones, which are not read: both are for training.

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
_NAMES = (
    "road, sidewalk, parking, rail track, building, wall, fence, guard rail, bridge, tunnel, pole, polegroup,"
    " traffic light, traffic sign, vegetation, terrain, sky, person, rider, car, truck, bus, caravan, trailer, train,"
    " motorcycle, bicycle"
)
CLASS_NAMES = tuple(_NAMES.split(", "))
FIRST_ID = 7
IMAGE_END, LABELS_END = "_leftImg8bit", "_gtFine_labelIds"


def find(folder: Path, split: str) -> Found:
    """Frames of "train", "val", "test" or "train_extra", with their fine label maps."""
    if split not in SPLITS:
        raise DataError(f"Cityscapes has no split {split!r}: there are {', '.join(SPLITS)}; join two by a +")
    images = by_stem(folder / "leftImg8bit" / split, end=IMAGE_END)
    if not images:
        raise DataError(
            f"no *{IMAGE_END}.png below {folder / 'leftImg8bit' / split}; Cityscapes is laid out as"
            f" leftImg8bit/{split}/CITY/*{IMAGE_END}.png and gtFine/{split}/CITY/*{LABELS_END}.png,"
            " and --data names the folder that holds leftImg8bit"
        )
    maps = by_stem(folder / "gtFine" / split, end=LABELS_END)
    table = ClassTable({FIRST_ID + i: i for i in range(len(CLASS_NAMES))}, others=IGNORED)
    labels = {path: maps[frame] for frame, path in images.items() if frame in maps}
    return Found(list(images.values()), labels, CLASS_NAMES, table)
