"""COCO-Stuff of 2017, in 27, 3, 15, 81 or 171 classes.

Knows nothing of how it is scored. Layout, as the pixel maps ("stuffthingmaps") and the lists of IIC are unpacked:

    images/{train2017,val2017}/*.jpg         or without images/
    annotations/{train2017,val2017}/*.png    or stuffthingmaps/; a pixel holds its label id less one, 255 none
    curated/{train2017,val2017}/Coco164kFull_Stuff_Coarse.txt, Coco164kFull_Stuff_Coarse_7.txt, Coco164kFew_Stuff_6.txt

Splits: "train" and "val" are the lists of whoever reports on these classes (`PUBLISHED`), "train_full" to "val_6" one
list by its name (`LISTS`). "train_7" is what PiCIE trains on; STEGO's and CAUSE's code trains on the full list although
STEGO's paper names the short one. Where a list is absent all images stand in. "train2017" and "val2017" are all images,
whatever the lists.

Source of the 27, of the lists: IIC (arXiv:1807.06653); STEGO, PiCIE and CAUSE use the same table.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.class_table import ClassTable
from training.data.errors import DataError
from training.data.files import by_stem, listed
from training.data.images import Found
from training.data.label_maps import IGNORED

JPEG = (".jpg", ".jpeg")
VARIANTS = ("27", "3", "15", "81", "171")
LAYOUT = (
    "COCO-Stuff is laid out as images/{train2017,val2017}/*.jpg, annotations/{train2017,val2017}/*.png"
    " and curated/{train2017,val2017}/Coco164kFull_Stuff_Coarse_7.txt"
)
# IIC's lists: file, and the images it names of train2017 and of val2017.
LISTS = {
    "full": ("Coco164kFull_Stuff_Coarse.txt", 97_702, 4_172),
    "7": ("Coco164kFull_Stuff_Coarse_7.txt", 49_629, 2_175),
    "6": ("Coco164kFew_Stuff_6.txt", 35_228, 1_432),
}
# The lists that "train" and "val" are, by class list.
PUBLISHED = {
    "27": ("full", "7"),  # STEGO, CAUSE
    "15": ("7", "7"),  # STEGO
    "3": ("6", "6"),  # STEGO
    "81": ("full", "full"),  # CAUSE
    "171": ("full", "full"),  # CAUSE
}
SPLITS = ("train", "val", *(f"{part}_{name}" for part in ("train", "val") for name in LISTS), "train2017", "val2017")
_COARSE = (
    "electronic, appliance, food-things, furniture-things, indoor, kitchen, accessory, animal, outdoor, person,"
    " sports, vehicle, ceiling, floor, food-stuff, furniture-stuff, rawmaterial, textile, wall, window, building,"
    " ground, plant, sky, solid, structural, water"
)
# By pixel value.
_FINE = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign,"
    " stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat,"
    " backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,"
    " baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife,"
    " spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch,"
    " potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, cell"
    " phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear, hair"
    " drier, toothbrush, hair brush, banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard,"
    " carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt,"
    " door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other,"
    " fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss,"
    " mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing,"
    " railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other,"
    " stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick,"
    " wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind,"
    " window-other, wood"
)
COARSE, FINE = tuple(_COARSE.split(", ")), tuple(_FINE.split(", "))
COARSE_OF_FINE = (
    9, 11, 11, 11, 11, 11, 11, 11, 11, 8, 8, 8, 8, 8, 8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 6, 6, 6, 6, 6, 6, 6, 6, 10,
    10, 10, 10, 10, 10, 10, 10, 10, 10, 5, 5, 5, 5, 5, 5, 5, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3,
    3, 3, 3, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4, 4, 4, 17, 17, 22, 20, 20, 22, 15, 25, 16, 13, 12,
    12, 17, 17, 23, 15, 15, 17, 15, 21, 15, 25, 13, 13, 13, 13, 13, 22, 26, 14, 14, 15, 22, 21, 21, 24, 20, 22, 15,
    17, 16, 15, 22, 24, 21, 17, 25, 16, 21, 17, 22, 16, 21, 21, 25, 21, 26, 21, 24, 20, 17, 14, 21, 26, 15, 23, 20,
    21, 24, 15, 24, 22, 25, 15, 20, 17, 17, 22, 14, 18, 18, 18, 18, 18, 18, 18, 26, 26, 19, 19, 24,
)  # fmt: skip
THINGS = 91  # pixel values below are things, the others stuff
ABSENT = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)  # pixel values no map has
FIRST_STUFF = 12  # among the 27


def find(folder: Path, split: str, variant: str = "27") -> Found:
    """Images of a split, with the label maps that are there, in one of the class lists."""
    if split not in SPLITS:
        raise DataError(f"COCO-Stuff has no split {split!r}: there are {', '.join(SPLITS)}")
    year, name, published = _list_of(split, variant)
    paths = by_stem(folder / "images" / year, JPEG) or by_stem(folder / year, JPEG)
    if not paths:
        raise DataError(f"{folder} has photos neither in images/{year} nor in {year}; {LAYOUT}")
    maps = by_stem(folder / "annotations" / year) or by_stem(folder / "stuffthingmaps" / year)
    chosen, notes = folder / "curated" / year / name, []
    if name and chosen.is_file():
        paths = listed(chosen, paths)
        if len(paths) != published:
            notes.append(f"{chosen} names {len(paths)} images; the published list of that name has {published}")
    elif name:
        notes.append(f"{chosen} is absent: all {len(paths)} images of {year} are used, not the published split")
    names, values = classes(variant)
    table = ClassTable(dict(enumerate(values.tolist())), others=IGNORED)
    labels = {path: maps[stem] for stem, path in paths.items() if stem in maps}
    return Found(list(paths.values()), labels, names, table, notes=tuple(notes))


def _list_of(split: str, variant: str) -> tuple[str, str, int]:
    """Year of a split, file of its list, empty where it has none, and how many images that names."""
    if split.endswith("2017"):
        return split, "", 0
    part, _, name = split.partition("_")
    is_val = part == "val"
    file, *counts = LISTS[name or PUBLISHED[variant][is_val]]
    return f"{part}2017", file, counts[is_val]


def classes(variant: str) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Class names in order, and the class of every pixel value: uint8 [256], 255 = ignored.

    27   the coarse classes
    15   those of them that are stuff
    3    sky, plant, ground
    171  the fine ones that occur
    81   background, which is all stuff, then the things that occur
    """
    table = np.full(256, IGNORED, np.uint8)
    present = [value for value in range(len(FINE)) if value not in ABSENT]
    if variant == "171":
        table[present] = np.arange(len(present))
        return tuple(FINE[value] for value in present), table
    if variant == "81":
        things = [value for value in present if value < THINGS]
        table[things] = np.arange(1, len(things) + 1)
        table[THINGS : len(FINE)] = 0
        return ("background", *(FINE[value] for value in things)), table
    kept = {
        "27": list(range(len(COARSE))),
        "15": list(range(FIRST_STUFF, len(COARSE))),
        "3": [COARSE.index(name) for name in ("sky", "plant", "ground")],
    }[variant]
    for value, coarse in enumerate(COARSE_OF_FINE):
        if coarse in kept:
            table[value] = kept.index(coarse)
    return tuple(COARSE[coarse] for coarse in kept), table
