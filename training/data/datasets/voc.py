"""Pascal VOC 2012 with 21 classes: photos of things, everything else is background.

Knows nothing of how it is scored. Layout, as the set's own archive unpacks (VOCdevkit/VOC2012; --data may name
that folder or one above it):

    JPEGImages/*.jpg
    SegmentationClass/*.png                              palette images; 255 around every object is ignored
    SegmentationClassAug/*.png                           those of SBD and of VOC, as values; where it was added
    ImageSets/Segmentation/{train,val,trainval}.txt      stems, one a line, or paths, as trainaug.txt often has them

Every list in ImageSets/Segmentation is a split. One whose name ends in "aug" ("trainaug", 10 582 images) takes its maps
from SegmentationClassAug, every other from SegmentationClass; what the one lacks is taken from the other. CAUSE
squashes images and maps to a square instead of cutting
the center out; here the evaluation's own resizing holds.
"""

from pathlib import Path

from training.data.errors import DataError
from training.data.files import by_stem, listed
from training.data.images import Found

_NAMES = (
    "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike,"
    " person, pottedplant, sheep, sofa, train, tvmonitor"
)
CLASS_NAMES = tuple(_NAMES.split(", "))


def find(folder: Path, split: str) -> Found:
    """Photos of "train", "val", "trainval", "trainaug" or of another list in ImageSets/Segmentation."""
    roots = (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012")
    root = next((root for root in roots if (root / "JPEGImages").is_dir()), None)
    if root is None:
        raise DataError(
            f"{folder} holds no JPEGImages; Pascal VOC 2012 is laid out as JPEGImages/*.jpg, SegmentationClass/*.png"
            " and ImageSets/Segmentation/{train,val,trainval}.txt, in the folder VOCdevkit/VOC2012 of its archive"
        )
    lists = root / "ImageSets" / "Segmentation"
    list_file = lists / f"{split}.txt"
    if not list_file.is_file():
        known = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
        raise DataError(f"{list_file} is missing: a split of Pascal VOC is a list of that folder; there are {known}")
    images = listed(list_file, by_stem(root / "JPEGImages"))
    plain, augmented = by_stem(root / "SegmentationClass"), by_stem(root / "SegmentationClassAug")
    maps = plain | augmented if split.endswith("aug") else augmented | plain
    labels = {path: maps[stem] for stem, path in images.items() if stem in maps}
    return Found(list(images.values()), labels, CLASS_NAMES)
