"""What --classes, --labels-from and --ignore make of label maps, and what there is to say of it.

Knows nothing of files of label maps or of scores.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from training.data.class_table import BINARY, counted_from, read_classes
from training.data.images import Images
from training.data.label_maps import IGNORED

_MOST_VALUES = 8  # that a note names


def classified(
    images: Images, console: Console, file: Path | None = None, first: int | None = None, ignore: Sequence[str] = ()
) -> tuple[Images, tuple[str, ...]]:
    """The images with the classes that the options give their label maps, and notes: a sentence each.

    file    --classes: names by value or color; None: what the data set says, or values are classes
    first   --labels-from: the first class's number; None: 0
    ignore  --ignore: values and names of classes, several of them joined by commas

    The maps are read once: classes nobody named are counted, masks of 0 and 255 found. Raises DataError.
    """
    names, table = images.named_classes, images.table
    if file is not None:
        names, table = read_classes(file, first)
    elif first is not None:
        names, table = (), counted_from(first)
    values = table.values_of([part for one in ignore for part in ([one] if one in names else one.split(","))], names)
    if values:
        names, table = table.ignoring(values, names)
    counts = images.classified(names, table).value_counts(console)
    notes = []
    if table.binary(counts) and IGNORED not in values and len(names) in (0, 2):
        names, table = names or ("class 0", "class 1"), BINARY
        notes.append("the label maps hold 0 and 255 alone, read as the classes 0 and 1; --ignore 255 leaves 255 out")
    if ignored := table.ignored(counts):
        notes.append(said_of(ignored, counts.total()))
    return images.classified(names or table.numbered(counts), table), tuple(notes)


def said_of(ignored: Mapping[int, int], pixels: int) -> str:
    """Which values are ignored, and their shares of the label maps' pixels."""
    shares = [f"{value}: {_share(count / pixels)}" for value, count in list(ignored.items())[:_MOST_VALUES]]
    more = [f"{len(ignored) - len(shares)} more"] if len(ignored) > len(shares) else []
    total = _share(sum(ignored.values()) / pixels)
    return f"ignored are {total} of the label maps' pixels, by value {', '.join(shares + more)}"


def _share(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if fraction >= 0.0005 else "under 0.1 %"
