"""Which class each value of a label map is: ignored, counted from another number, or as somebody's table says.

Knows nothing of files of label maps; a table of classes is read from text or JSON.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.errors import DataError
from training.data.label_maps import IGNORED, Color, Colors, Values

FORMATS = (
    "a line `name:R,G,B::` (CVAT's and VOC's labelmap.txt), `name,R,G,B`, `R G B name`, `value name` or `name` for each"
    ' class, # begins a comment; or JSON: {"value": "name"}, {"name": value or [R, G, B] or "#RRGGBB"}, ["name"],'
    ' [{"name": …, "value": …, "color": …}]'
)
_LINES = (  # in the order in which they are tried; the first line decides for all
    re.compile(r"(?P<name>.+?)\s*[:,]\s*(?P<color>\d+\s*,\s*\d+\s*,\s*\d+)\s*(:.*)?"),
    re.compile(r"(?P<color>\d+[\s,]+\d+[\s,]+\d+)[\s,]+(?P<name>[^\d\s].*)"),
    re.compile(r"(?P<value>-?\d+)\s*[\s,:=]\s*(?P<name>\S.*)"),
    re.compile(r"(?P<name>.+)"),
)
_CSV_HEADER = re.compile(r"name\s*,\s*r\s*,\s*g\s*,\s*b", re.IGNORECASE)


@dataclass(frozen=True)
class ClassTable:
    """The class of every value a label map may hold.

    class_of  value → class, 0 to 254, or IGNORED
    others    what a value that is not there is: IGNORED, or None, an error
    colors    the value of each color, where label maps in colors have a meaning
    """

    class_of: Mapping[int, int]
    others: int | None = None
    colors: Colors | None = None

    def classes(self, values: Values) -> NDArray[np.uint8]:
        """Classes of values [H, W]: uint8 [H, W], 255 = ignored. Raises DataError for a value that has none."""
        held, at = (np.arange(256), values) if values.dtype == np.uint8 else np.unique(values, return_inverse=True)
        found = [self.class_of.get(value, self.others) for value in held.tolist()]
        table = np.array([-1 if one is None else one for one in found], np.int16)
        classes = table[at]
        if (strange := classes < 0).any():
            value = int(values[strange].max())
            raise DataError(
                f"the value {value} in {strange.mean():.1%} of its pixels is no class: classes are"
                f" {_spans(v for v, c in self.class_of.items() if c != IGNORED)}; --ignore {value} leaves it out,"
                " --classes FILE says what it is"
            )
        return classes.astype(np.uint8)

    def knows(self, values: Iterable[int]) -> bool:
        """Whether each of these values is a class, or ignored."""
        return all(self.class_of.get(value, self.others) is not None for value in values)

    def numbered(self, values: Iterable[int]) -> tuple[str, ...]:
        """Names for classes nobody named, up to the largest that these values are: "class 0", after the value."""
        held = [self.class_of.get(value, IGNORED) for value in values]
        largest = max((one for one in held if one != IGNORED), default=0)
        value_of = {one: value for value, one in sorted(self.class_of.items(), reverse=True)}
        return tuple(f"class {value_of[one]}" for one in range(largest + 1))

    def ignoring(self, values: Collection[int], names: tuple[str, ...]) -> tuple[tuple[str, ...], "ClassTable"]:
        """Names and table without some values; a class that has none left is gone, and those behind it move up.

        names  by class, or () where nobody knows them
        """
        last = len(names) or IGNORED
        left = {v: c for v, c in self.class_of.items() if v not in values and (c < last or c == IGNORED)}
        kept = sorted({one for one in left.values() if one != IGNORED})
        if not kept:
            raise DataError("--ignore leaves no class")
        moved = {one: i for i, one in enumerate(kept)} | {IGNORED: IGNORED}
        class_of = {value: moved[one] for value, one in left.items()} | dict.fromkeys(values, IGNORED)
        return tuple(names[one] for one in kept if names), ClassTable(class_of, self.others, self.colors)

    def values_of(self, given: Iterable[str], names: tuple[str, ...]) -> set[int]:
        """The values that numbers and names of classes stand for. Raises DataError."""
        found: set[int] = set()
        for one in given:
            if one in names:
                found |= {value for value, at in self.class_of.items() if at == names.index(one)}
            elif re.fullmatch(r"\s*-?\d+\s*", one):
                found.add(int(one))
            else:
                known = f", nor the name of a class: {', '.join(names)}" if names else "; names are those of --classes"
                raise DataError(f"--ignore {one}: it is no value{known}")
        return found

    def binary(self, counts: Collection[int]) -> bool:
        """Whether label maps with these values, 0 and 255, are masks of two classes, though 255 says "ignored"."""
        return set(counts) == {0, IGNORED} and (self.class_of.get(0), self.class_of.get(IGNORED)) == (0, IGNORED)

    def ignored(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Of pixels by value those that are ignored, most first."""
        left = {value: n for value, n in counts.items() if self.class_of.get(value, self.others) == IGNORED}
        return dict(Counter(left).most_common())


def pixels_by_value(values: Values) -> Counter[int]:
    """How many pixels of a label map [H, W] have each of its values."""
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(), minlength=256)
        held = np.flatnonzero(counts)
        return Counter(dict(zip(held.tolist(), counts[held].tolist(), strict=True)))
    held, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(held.tolist(), counts.tolist(), strict=True)))


def counted_from(first: int = 0) -> ClassTable:
    """Values are classes, counted from `first`: what is below is ignored, and so is 255."""
    return ClassTable({v: v - first if v >= first else IGNORED for v in range(IGNORED)} | {IGNORED: IGNORED})


PLAIN = counted_from()
BINARY = ClassTable({0: 0, 255: 1})  # masks as painting programs and scripts save them


@dataclass(frozen=True)
class _Entry:
    name: str
    value: int | None = None
    color: Color | None = None


def read_classes(path: Path, first: int | None = None) -> tuple[tuple[str, ...], ClassTable]:
    """Names by class, and the table, of a file in one of the FORMATS.

    first  the value of the first class where the file gives no values; None: 0

    Values that share a name are one class; 255 is ignored unless the file has it. Where the file gives colors and no
    values, palette maps are read by color. Raises DataError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--classes {path}: it cannot be read: {error}") from None
    try:
        entries = _of_json(text) if text.lstrip()[:1] in ("{", "[") else _of_lines(text)
        return _table(entries, first)
    except DataError as error:
        raise DataError(f"--classes {path}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError):  # JSON that is none, or is built in another way
        raise DataError(f"--classes {path}: it is not built as one of these: {FORMATS}") from None


def _table(entries: Sequence[_Entry], first: int | None) -> tuple[tuple[str, ...], ClassTable]:
    valued = [entry for entry in entries if entry.value is not None]
    if not entries or len(valued) not in (0, len(entries)):
        raise DataError(f"write the value of {'every class, or of none' if entries else 'a class'}: {FORMATS}")
    if valued and first is not None:
        raise DataError("it gives the values itself: leave --labels-from out")
    names = tuple(dict.fromkeys(entry.name for entry in entries))
    if len(names) > IGNORED:
        raise DataError(f"{len(names)} classes; there may be {IGNORED}")
    class_of = {} if valued else dict.fromkeys(range(first or 0), IGNORED)
    values: dict[Color, int] = {}
    for place, entry in enumerate(entries, first or 0):
        value = place if entry.value is None else entry.value
        if value in class_of or entry.color in values:
            raise DataError(f"{entry.name}: its {'value' if value in class_of else 'color'} is that of another class")
        class_of[value] = names.index(entry.name)
        if entry.color:
            values[entry.color] = value
    return names, ClassTable({IGNORED: IGNORED} | class_of, colors=Colors(values, not valued) if values else None)


def _of_lines(text: str) -> list[_Entry]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line]
    if numbered and _CSV_HEADER.fullmatch(numbered[0][1]):
        numbered = numbered[1:]
    if not numbered:
        return []
    form = next(form for form in _LINES if form.fullmatch(numbered[0][1]))
    entries = []
    for number, line in numbered:
        found = form.fullmatch(line)
        if not found:
            raise DataError(f"line {number} is not built as the first: {FORMATS}")
        parts = found.groupdict()
        value, color = parts.get("value"), parts.get("color")
        entries.append(
            _Entry(parts["name"].strip(), int(value) if value else None, _color(re.findall(r"\d+", color or "")))
        )
    return entries


def _of_json(text: str) -> list[_Entry]:
    content = json.loads(text)
    if isinstance(content, list):
        return [_Entry(one) if isinstance(one, str) else _of_object(one) for one in content]
    if all(re.fullmatch(r"-?\d+", key) for key in content):
        return [_Entry(_name(name), int(value)) for value, name in content.items()]
    return [
        _Entry(name, given) if isinstance(given, int) else _Entry(name, color=_color(given))
        for name, given in content.items()
    ]


def _of_object(content: dict[str, Any]) -> _Entry:
    value = content.get("value", content.get("id"))
    return _Entry(_name(content["name"]), None if value is None else int(value), _color(content.get("color")))


def _name(given: object) -> str:
    if not isinstance(given, str):
        raise DataError(f"{given!r} is no name: {FORMATS}")
    return given


def _color(given: Any) -> Color | None:
    """(R, G, B) of three numbers or of "#RRGGBB"; None where nothing is given. Raises DataError."""
    if not given:
        return None
    if isinstance(given, str):
        given = bytes.fromhex(given.removeprefix("#"))
    red, green, blue = (int(one) for one in given)
    if not all(0 <= one <= 255 for one in (red, green, blue)):
        raise DataError(f"the color {red},{green},{blue}: write three numbers from 0 to 255")
    return red, green, blue


def _spans(values: Iterable[int]) -> str:
    """ "0 to 10, 12" """
    spans: list[list[int]] = []
    for value in sorted(values):
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return ", ".join(f"{low} to {high}" if high > low else f"{low}" for low, high in spans)
