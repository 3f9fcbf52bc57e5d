"""Images to learn from: what a data set is, and how one is opened by name.

Knows nothing of crops, batches or networks. The folder is the registry: a further data set is one file
here with a function `find(folder, split) -> Found`; one that comes in several class lists ("cocostuff:15")
takes the part behind the colon as a third argument, and names them in `VARIANTS`.

Images and label maps are paired by their stems, never by their places in two sorted lists. Labels are for
scoring: no method reads them, and they may be missing.
"""

from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from rich.console import Console

from models.io.decode import SUFFIXES
from training.data.errors import DataError
from training.data.files import walk
from training.data.images import FEWEST_IMAGES, Bands, Found, Images, check
from training.data.label_maps import LABEL_SUFFIXES, REFUSED_SUFFIXES, refusal
from training.progress import say


def names() -> list[str]:
    """Every data set there is a file for."""
    return sorted(module.name for module in iter_modules(__path__))


def open(
    name: str, folder: Path, *, split: str = "train", bands: Bands = None, console: Console | None = None
) -> Images:
    """The readable images of a data set; each is decoded once, the others are named and skipped.

    name   "voc", or with a class list of its own "cocostuff:15"
    split  as the data set calls it; "train+val" is both
    bands  which samples of a file with many are read; None: as the file says

    Raises DataError when the folder or the data set does not exist or too few images can be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; --data names the folder that holds the images")
    folder = folder.resolve()
    found = replace(find(name, folder, split), bands=bands)
    console = console or Console(stderr=True)
    for note in found.notes:
        say(console, note)
    good, skipped = check(found, console)
    for one in skipped:
        say(console, f"skipped {one.path.relative_to(folder)}: {one.reason}")
    if len(good) < FEWEST_IMAGES:
        raise DataError(
            f"{folder} holds {len(good)} readable image{'s' * (len(good) != 1)}"
            f" ({len(skipped)} unreadable); at least {FEWEST_IMAGES} are needed, a few dozen are better."
            f" Known suffixes: {' '.join(SUFFIXES)}"
        )
    return Images(folder, good, found, skipped=skipped)


def find(name: str, folder: Path, split: str) -> Found:
    """What a data set's file finds for a split, or for several joined by "+"; no image is opened."""
    kind, colon, variant = name.partition(":")
    if kind not in names():
        raise DataError(f"data set {name!r}: there are {', '.join(names())}")
    module = import_module(f"training.data.datasets.{kind}")
    variants: tuple[str, ...] = getattr(module, "VARIANTS", ())
    if colon and variant not in variants:
        known = f"there are {', '.join(f'{kind}:{v}' for v in variants)}" if variants else f"write {kind}"
        raise DataError(f"data set {name!r}: {known}")
    parts: list[Found] = [module.find(folder, part, *([variant] if variant else [])) for part in split.split("+")]
    return replace(
        parts[0],
        paths=list(dict.fromkeys(path for part in parts for path in part.paths)),
        labels={path: label for part in parts for path, label in part.labels.items()},
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def with_labels(images: Images, folder: Path) -> Images:
    """The images paired with the label maps of a folder: by path below it without suffix, else by stem alone.

    A stem alone decides only where one image and one label map have it. Values of the maps are classes.

    Raises DataError when an image has no label map, or one in a format that changes values; it names up to three.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; --labels names the folder that holds the label maps")
    maps = walk(folder.resolve(), LABEL_SUFFIXES)
    below = {path.relative_to(folder.resolve()).with_suffix("").as_posix(): path for path in maps}
    if len(below) < len(maps):
        twice = next(path for path in maps if path not in below.values())
        raise DataError(f"{twice}: another label map has the same name but for its suffix; keep one of them")
    alone = {path.stem: path for path in maps}
    once = {stem for stem, count in Counter(path.stem for path in maps).items() if count == 1}
    once &= {stem for stem, count in Counter(path.stem for path in images.paths).items() if count == 1}
    pairs, missing = {}, []
    for i, path in enumerate(images.paths):
        label = below.get(Path(images.name(i)).with_suffix("").as_posix())
        if label is None and path.stem in once:
            label = alone[path.stem]
        if label is None:
            missing.append(images.name(i))
        elif label == path:
            raise DataError(f"{path} is among the images and the label maps: keep them in two folders")
        else:
            pairs[path] = label
    if missing:
        stems = {Path(name).stem for name in missing}
        for path in walk(folder.resolve(), tuple(REFUSED_SUFFIXES)):
            if path.stem in stems and path not in images.paths:
                raise DataError(f"{path}: {refusal(REFUSED_SUFFIXES[path.suffix.lower()])}")
        raise DataError(
            f"{len(missing)} of {len(images)} images have no label map in {folder}, for instance"
            f" {', '.join(missing[:3])}: a label map has the image's name and one of the suffixes"
            f" {' '.join(LABEL_SUFFIXES)}"
        )
    return images.paired(pairs)
