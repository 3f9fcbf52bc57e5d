"""Label maps among photos: flat files that are named as the photos beside them, as `imgs/x.jpg` and `labels/x.png`.

Knows nothing of classes. Names say which files may be pairs; then a few of each group are opened, and a group is one of
label maps where all of them are flat and photos of the same names are not.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.errors import TesseraError
from models.io.paths import Paths
from training.data.images import Bands, Reader, evenly
from training.data.label_maps import LABEL_SUFFIXES

# What names of label maps end in where those of photos do not, or where both end in something else.
_ENDINGS = re.compile(
    r"([-_. ](masks?|labels?|(gtfine|gtcoarse)|labelids|labeltrainids|instanceids|color|gt|seg|segm|segmentation"
    r"|annotations?|manual\d*|training|test|leftimg8bit|image|img|rgb|[lp]))+$",
    re.IGNORECASE,
)
_SUFFIXES = (*LABEL_SUFFIXES, ".gif")
_PAIRED = 0.9  # share of a group's files that have a partner
_OPENED = 6  # files of a group
_MOST_GROUPS = 64  # of which some are opened before all are
_MOST_COLORS, _LEAST_ALIKE = 64, 0.8  # of a flat image: colors, share of neighbors that have the same


@dataclass
class _Group:
    """Files of one folder and one kind of name: those with others of the same stem, and how many have none."""

    files: list[int] = field(default_factory=list)
    partners: dict[int, list[int]] = field(default_factory=dict)
    alone: int = 0

    def add(self, i: int, partners: list[int]) -> None:
        """One more file."""
        if partners:
            self.files.append(i)
            self.partners[i] = partners
        else:
            self.alone += 1


def label_maps_among(paths: Paths, read: Reader, bands: Bands = None) -> list[int]:
    """Which of some paths are label maps of the others: their places, in order."""
    groups = _paired(paths.texts)
    some = [groups[i] for i in evenly(len(groups), _MOST_GROUPS)]
    flat = [_is_of_label_maps(group, paths, read, bands) for group in some]
    if len(groups) > _MOST_GROUPS and any(flat):
        some, flat = groups, [_is_of_label_maps(group, paths, read, bands) for group in groups]
    return sorted(i for group, one in zip(some, flat, strict=True) if one for i in group.files)


def _paired(texts: Sequence[str]) -> list[_Group]:
    """Groups whose files nearly all have others of the same stem."""
    if not any(map(_may_be_one, texts)):
        return []
    keys = np.fromiter((hash(_stem(text)[0]) for text in texts), np.int64, len(texts))
    _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    groups: dict[tuple[str, str, bool], _Group] = defaultdict(_Group)
    same: dict[int, list[int]] = defaultdict(list)
    for i, key in enumerate(which.tolist()):
        if counts[key] > 1:
            same[key].append(i)
        elif _may_be_one(texts[i]):
            groups[_group_of(texts[i])].alone += 1
    for places in same.values():
        named = [(i, _group_of(texts[i])) for i in places]
        for i, name in named:
            if _may_be_one(texts[i]):
                others = [j for j, other in named if other != name]
                groups[name].add(i, others)
    return [group for group in groups.values() if len(group.files) > _PAIRED * (len(group.files) + group.alone)]


def _may_be_one(text: str) -> bool:
    return text.lower().endswith(_SUFFIXES)


def _stem(text: str) -> tuple[str, bool]:
    """A file's name without suffix and endings, and whether it had one of these."""
    stem = os.path.splitext(os.path.basename(text))[0]
    bare = _ENDINGS.sub("", stem)
    return bare, bare != stem


def _group_of(text: str) -> tuple[str, str, bool]:
    return os.path.dirname(text), os.path.splitext(text)[1].lower(), _stem(text)[1]


def _is_of_label_maps(group: _Group, paths: Paths, read: Reader, bands: Bands) -> bool:
    opened = [group.files[i] for i in evenly(len(group.files), _OPENED)]
    pictures = 0
    for i in opened:
        flat = _is_flat(paths[i], read, bands)
        if flat is False:
            return False
        pictures += flat is True and any(_is_flat(paths[j], read, bands) is False for j in group.partners[i])
    return 2 * pictures > len(opened)


def _is_flat(path: Path, read: Reader, bands: Bands) -> bool | None:
    """Whether an image has few colors in large areas; None where it cannot be read."""
    try:
        image = read(path, bands).image.astype(np.int32)
    except (TesseraError, OSError):
        return None
    packed = image @ np.array([1 << 16, 1 << 8, 1], np.int32)
    alike = np.mean(packed[:, 1:] == packed[:, :-1]) if packed.shape[1] > 1 else 1.0
    return bool(alike >= _LEAST_ALIKE and len(np.unique(packed)) <= _MOST_COLORS)
