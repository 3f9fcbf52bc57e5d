"""Any folders of images, searched to the bottom.

Knows nothing of labels or splits: every image below the folders is used, whatever its folder is called.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from models.io.paths import Names, Paths
from models.io.walker import survey
from training.data.images import Bands, Found, read_image
from training.data.label_map_files import label_maps_among

LabelMaps = Literal["leave_out", "as_photos"]


def find(folder: Path, split: str) -> Found:
    """Every image below the folder."""
    return find_all([folder])


def find_all(
    folders: Sequence[Path],
    *,
    without: Collection[Path] = (),
    label_maps: LabelMaps = "leave_out",
    bands: Bands = None,
) -> Found:
    """Every image below the folders, but for those below `without`.

    label_maps  what flat files are that are named as the photos beside them; only a few of them are opened
    bands       which samples of a file with many are read; None: as the file says
    """
    seen, names = survey(folders, without=without), Names(tuple(folders))
    notes = [f"{path}: the folder of a run or a bundle, whose pictures are no data" for path in seen.outputs]
    files = seen.files
    if label_maps == "leave_out" and (maps := label_maps_among(files, read_image, bands)):
        first = names.of(files[maps[0]])
        notes.append(
            f"left out: {len(maps)} flat files named as the photos beside them, for instance {first}, taken for their"
            " label maps; --set data.label_maps=as_photos (train) or --label-maps as_photos (pretrain, evaluate) makes"
            " them photos"
        )
        dropped = set(maps)
        files = Paths(text for i, text in enumerate(files.texts) if i not in dropped)
    return Found(files, notes=tuple(notes), left_out=seen.left_out, unusable=seen.unusable, bands=bands)
