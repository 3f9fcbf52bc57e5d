"""Files of a data set, paired by stem.

Knows nothing of pixels, or of what is passed over below a folder: `models/io/walker.py` finds the files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.io.decode import SUFFIXES
from models.io.walker import walk
from training.data.errors import DataError


def by_stem(folder: Path, suffixes: Sequence[str] = SUFFIXES, *, end: str = "") -> dict[str, Path]:
    """The files below a folder by their stems, those alone that end in `end`, which is cut off; {} without a folder."""
    return {path.stem.removesuffix(end): path for path in walk(folder, suffixes) if path.stem.endswith(end)}


def listed(list_file: Path, files: Mapping[str, Path]) -> dict[str, Path]:
    """The files a published list names, one stem a line, in its order. Raises DataError when some are missing."""
    lines = list_file.read_text(encoding="utf-8").split()
    stems = list(dict.fromkeys(Path(line).stem for line in lines))
    if missing := [stem for stem in stems if stem not in files]:
        raise DataError(
            f"{list_file} names {len(stems)} images, and {len(missing)} of them are not there, for instance"
            f" {', '.join(missing[:3])}: unpack the whole set, or shorten the list"
        )
    return {stem: files[stem] for stem in stems}
