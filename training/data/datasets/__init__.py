"""Images to learn from: what a data set is, and how one is opened by name.

Knows nothing of crops, batches or networks. The folder is the registry: a further data set is one file
here with a function `find(folder, split) -> Found`; one that comes in several class lists ("cocostuff:15")
takes the part behind the colon as a third argument, and names them in `VARIANTS`.

Images and label maps are paired by their stems, never by their places in two sorted lists. Labels are for
scoring: no method reads them, and they may be missing.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from rich.console import Console

from models.io.decode import SUFFIXES
from models.io.walker import walk
from models.terminal.progress import say
from training.data.check import check
from training.data.datasets import folder as folders_of_images
from training.data.datasets.folder import LabelMaps
from training.data.errors import DataError
from training.data.images import FEWEST_IMAGES, Bands, Found, Images
from training.data.label_maps import LABEL_SUFFIXES, REFUSED_SUFFIXES, refusal
from training.data.left_out import sentences


def names() -> list[str]:
    """Every data set there is a file for."""
    return sorted(module.name for module in iter_modules(__path__))


def open(
    name: str,
    folders: Path | Sequence[Path],
    *,
    split: str = "train",
    bands: Bands = None,
    console: Console | None = None,
    without: Collection[Path] = (),
    label_maps: LabelMaps = "leave_out",
    index: Path | None = None,
    fewest: int = FEWEST_IMAGES,
) -> Images:
    """The readable images of a data set; each is decoded once, the others are named and skipped.

    name     "voc", or with a class list of its own "cocostuff:15"
    folders  one, or several that are joined
    split    as the data set calls it; "train+val" is both
    bands    which samples of a file with many are read; None: as the file says
    without  folders that are no data, wherever they lie
    index    file that remembers which images can be read, for the next time
    fewest   images that there must be

    Of folders without a data set's layout `label_maps` says what flat files named as the photos beside them are.

    Raises DataError when a folder or the data set does not exist or too few images can be read.
    """
    roots = resolved(folders)
    console = console or Console(stderr=True)
    found = find(name, roots, split, bands=bands, without=without, label_maps=label_maps)
    for note in (*found.notes, *sentences(found.left_out)):
        say(console, note)
    checked = check(found, console, index)
    images = Images(roots, checked.paths, found, skipped=checked.skipped, sizes=checked.sizes)
    for one in images.skipped:
        say(console, f"skipped {images.names.of(one.path)}: {one.reason}")
    if len(images) < fewest:
        raise DataError(
            f"{images.names} hold{'s' * (len(roots) == 1)} {len(images)} readable image{'s' * (len(images) != 1)}"
            f" ({len(images.skipped)} unreadable); at least {fewest} are needed, a few dozen are better."
            f" Known suffixes: {' '.join(SUFFIXES)}"
        )
    return images


def resolved(folders: Path | Sequence[Path]) -> tuple[Path, ...]:
    """The folders by their real paths, none twice and none that lies in another. Raises DataError."""
    asked = [folders] if isinstance(folders, Path) else folders
    for folder in asked:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; --data names the folder that holds the images")
    real = list(dict.fromkeys(folder.resolve() for folder in asked))
    return tuple(one for one in real if not any(other in one.parents for other in real))


def find(
    name: str,
    folders: Sequence[Path],
    split: str,
    *,
    bands: Bands = None,
    without: Collection[Path] = (),
    label_maps: LabelMaps = "leave_out",
) -> Found:
    """What a data set's file finds in folders for a split, or for several joined by "+"; no image is opened."""
    kind, colon, variant = name.partition(":")
    if kind not in names():
        raise DataError(f"data set {name!r}: there are {', '.join(names())}")
    module = import_module(f"training.data.datasets.{kind}")
    variants: tuple[str, ...] = getattr(module, "VARIANTS", ())
    if colon and variant not in variants:
        known = f"there are {', '.join(f'{kind}:{v}' for v in variants)}" if variants else f"write {kind}"
        raise DataError(f"data set {name!r}: {known}")
    if module is folders_of_images:
        return folders_of_images.find_all(folders, without=without, label_maps=label_maps, bands=bands)
    more = [variant] if variant else []
    parts: list[Found] = [module.find(folder, part, *more) for folder in folders for part in split.split("+")]
    return replace(
        parts[0],
        paths=list(dict.fromkeys(path for part in parts for path in part.paths)),
        labels={path: label for part in parts for path, label in part.labels.items()},
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        bands=bands,
    )


def with_labels(images: Images, folder: Path) -> Images:
    """The images paired with the label maps of a folder: by path below it without suffix, else by stem alone.

    A stem alone decides only where one image and one label map have it. Values of the maps are classes. Of images that
    have no label map those are skipped that cannot be read.

    Raises DataError when another image has no label map, or one in a format that changes values; it names up to three.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; --labels names the folder that holds the label maps")
    there = walk(folder.resolve(), LABEL_SUFFIXES)
    photos = set(images.paths.texts)
    maps = [path for path in there if str(path) not in photos] or there
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
            missing.append(path)
        elif label == path:
            raise DataError(f"{path} is among the images and the label maps: keep them in two folders")
        else:
            pairs[path] = label
    images, missing = _without_unreadable(images, missing)
    if missing:
        stems = {path.stem for path in missing}
        for path in walk(folder.resolve(), tuple(REFUSED_SUFFIXES)):
            if path.stem in stems and path not in images.paths:
                raise DataError(f"{path}: {refusal(REFUSED_SUFFIXES[path.suffix.lower()])}")
        raise DataError(
            f"{len(missing)} of {len(images)} images have no label map in {folder}, for instance"
            f" {', '.join(map(images.names.of, missing[:3]))}: a label map has the image's name and one of the suffixes"
            f" {' '.join(LABEL_SUFFIXES)}"
        )
    return images.paired(pairs)


def _without_unreadable(images: Images, missing: list[Path]) -> tuple[Images, list[Path]]:
    """The images, and those that miss something, without those of the latter that cannot be read."""
    if not missing:
        return images, []
    skipped = check(Found(missing, read=images.read, bands=images.bands), Console(quiet=True)).skipped
    unreadable = {one.path for one in skipped}
    kept = images.subset((i for i, path in enumerate(images.paths) if path not in unreadable), skipped=skipped)
    return kept, [path for path in missing if path not in unreadable]
