"""Potsdam with three classes: aerial photos cut into patches of 200×200.

Knows nothing of how it is scored. Layout, as IIC's scripts cut the set:

    imgs/*.mat     img: uint8 [200, 200, 4], red, green, blue, infrared, which is dropped
    gt/*.mat       gt: 0 road, 1 building, 2 low vegetation, 3 tree, 4 car, 5 clutter, 255 none
    labelled_train.txt, labelled_test.txt, unlabelled_train.txt    stems, one a line; all.txt where it is

PNG or TIFF files of the same names and samples do as well. Roads and cars become one class, buildings and
clutter another, low vegetation and trees the third. STEGO trains on labelled_train ("train") and reports on
labelled_test ("val").

Source: IIC (arXiv:1807.06653).
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from models.io.samples import Decoded
from training.data import label_maps
from training.data.class_table import ClassTable
from training.data.errors import DataError
from training.data.files import by_stem, listed
from training.data.images import Bands, Found
from training.data.label_maps import IGNORED, LABEL_SUFFIXES, Colors, Values

CLASS_NAMES = ("roads and cars", "buildings and clutter", "vegetation and trees")
CLASS_OF_VALUE = (0, 1, 2, 2, 0, 1)
LISTS = {
    "train": ("labelled_train.txt",),
    "val": ("labelled_test.txt",),
    "unlabelled_train": ("unlabelled_train.txt", "unlabelled.txt"),
    "unlabelled": ("unlabelled_train.txt", "unlabelled.txt"),  # the same, under its first name here
    "all": ("all.txt",),
}
_PARTS = ("train", "val", "unlabelled_train")  # which are all, where there is no list of all
SUFFIXES = (".mat", *LABEL_SUFFIXES)
BANDS = (1, 2, 3)


def find(folder: Path, split: str) -> Found:
    """Patches of "train", "val", "unlabelled_train" or "all"."""
    if split not in LISTS:
        raise DataError(f"Potsdam has no split {split!r}: there are {', '.join(LISTS)}; join two by a +")
    patches, images = by_stem(folder / "imgs", SUFFIXES), dict[str, Path]()
    for part in (split,) if split != "all" or _list_of(folder, split) else _PARTS:
        list_file = _list_of(folder, part)
        if list_file is None or not (folder / "imgs").is_dir():
            lacking = LISTS[part][0] if list_file is None else "imgs"
            raise DataError(
                f"{folder / lacking} is missing; Potsdam is laid out as imgs/*.mat, gt/*.mat"
                " and the lists labelled_train.txt, labelled_test.txt and unlabelled_train.txt"
            )
        images |= listed(list_file, patches)
    return labelled(folder, images)


def labelled(folder: Path, images: Mapping[str, Path]) -> Found:
    """Patches by their stems, with the label maps of gt/ below a folder."""
    maps = by_stem(folder / "gt", SUFFIXES)
    table = ClassTable(dict(enumerate(CLASS_OF_VALUE)), others=IGNORED)
    labels = {path: maps[stem] for stem, path in images.items() if stem in maps}
    return Found(list(images.values()), labels, CLASS_NAMES, table, read_image, read_labels)


def _list_of(folder: Path, split: str) -> Path | None:
    return next((folder / name for name in LISTS[split] if (folder / name).is_file()), None)


def read_image(path: Path, bands: Bands = None) -> Decoded:
    """A patch, without the infrared unless `bands` asks for it. Raises DataError."""
    if path.suffix.lower() == ".mat":
        samples = _mat(path, "img")
    else:
        try:
            with Image.open(path) as opened:  # not models.io.decode: a PNG's fourth band is alpha, and here infrared
                samples = np.asarray(opened)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DataError(f"{path}: the patch cannot be read: {error}") from None
    if samples.ndim != 3 or samples.shape[2] < len(BANDS) or samples.dtype != np.uint8:
        raise DataError(
            f"{path}: {samples.dtype} of shape {list(samples.shape)}; a patch is uint8 [H, W, 4] or [H, W, 3]"
        )
    wanted = bands or BANDS
    if max(wanted) > samples.shape[2]:
        raise DataError(f"{path}: bands {', '.join(map(str, wanted))}, and it has {samples.shape[2]}")
    picked = np.ascontiguousarray(samples[..., [band - 1 for band in wanted]])
    return Decoded(np.repeat(picked, 3, axis=2) if len(wanted) == 1 else picked)


def read_labels(path: Path, colors: Colors | None = None) -> Values:
    """Values of a patch's label map, integers [H, W]. Raises DataError."""
    if path.suffix.lower() != ".mat":
        return label_maps.read_labels(path, colors)
    values = _mat(path, "gt")
    if values.ndim != 2 or not values.size or not (values.min() >= 0 and values.max() <= IGNORED):
        raise DataError(f"{path}: shape {list(values.shape)}; a label map is [H, W] with values 0 to 5, 255 for none")
    return values.astype(np.uint8)


def _mat(path: Path, name: str) -> NDArray[np.uint8]:
    try:
        found = loadmat(path, variable_names=[name])
    except (MatReadError, NotImplementedError, IndexError, ValueError, TypeError, OSError, zlib.error) as error:
        raise DataError(f"{path}: damaged, or no .mat file up to version 7: {error}") from None
    if name not in found:
        raise DataError(f"{path}: no variable {name!r} in it")
    return np.asarray(found[name])
