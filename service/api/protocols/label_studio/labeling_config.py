"""A labeling configuration: which images of a task are labeled, with which tools, and what their labels are called.

Knows nothing of HTTP, of clusters, of pixels. The XML comes from strangers: no document type, no entities, bounded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from xml.parsers import expat

from service.errors import BadOption, quoted

Kind = Literal["brushlabels", "polygonlabels"]
_KINDS: dict[str, Kind] = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}
_MAX_CHARACTERS = 2**20
_MAX_TAGS = 10_000
_MAX_DEPTH = 64
_OPTION = "tessera_"  # how attributes that are for us begin
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Label:
    """One `Label`: its `value`, and `alias`, which stands in results where there is one."""

    value: str
    alias: str

    @property
    def name(self) -> str:
        """What results call it."""
        return self.alias or self.value


@dataclass(frozen=True)
class Control:
    """One `BrushLabels` or `PolygonLabels` tag.

    to_names  of the image tags it labels
    options   what its attributes `tessera_…` say, as `POST /segment` has them
    min_area  pixels: smaller regions are left out; None: nothing is said
    """

    name: str
    kind: Kind
    to_names: tuple[str, ...]
    options: Mapping[str, str]
    min_area: int | None
    labels: list[Label] = field(default_factory=list)


@dataclass(frozen=True)
class LabelingConfig:
    """What a configuration says of images.

    images    name of an image tag → the key of a task's data that holds its address
    controls  with labels, in the order of the page
    """

    images: Mapping[str, str]
    controls: tuple[Control, ...]

    def of(self, image: str) -> tuple[Control, ...]:
        """The controls of one image tag."""
        return tuple(control for control in self.controls if image in control.to_names)


def parse(xml: str) -> LabelingConfig:
    """A configuration as Label Studio sends it. Raises BadOption, which says what to change, for one of no use here."""
    if len(xml) > _MAX_CHARACTERS:
        raise BadOption(f"label_config: {len(xml)} characters; {_MAX_CHARACTERS} are the most")
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(xml, True)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise BadOption(f"label_config is no XML: {error}") from None
    controls = tuple(control for control in reader.controls if control.labels)
    images = {name: key for name, key in reader.images.items() if any(name in c.to_names for c in controls)}
    if not images:
        raise BadOption(
            "label_config: no image is labeled with BrushLabels or PolygonLabels; it needs for instance <Image"
            ' name="image" value="$image"/> and <BrushLabels name="brush" toName="image"> with a <Label> in it'
        )
    return LabelingConfig(images, tuple(c for c in controls if any(name in images for name in c.to_names)))


class _Reader:
    """The tags of interest, as they go by."""

    def __init__(self) -> None:
        self.images: dict[str, str] = {}
        self.controls: list[Control] = []
        self._open: list[Control | None] = []
        self._tags = 0

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """A tag begins."""
        self._tags += 1
        if self._tags > _MAX_TAGS or len(self._open) >= _MAX_DEPTH:
            raise BadOption(f"label_config: more than {_MAX_TAGS} tags, or more than {_MAX_DEPTH} in each other")
        inside = self._open[-1] if self._open else None
        name, value = attributes.get("name", ""), attributes.get("value", "")
        if tag == "Image" and name and value.startswith("$"):
            self.images[name] = value[1:]
        elif tag in _KINDS and name:
            to_names = tuple(attributes.get("toName", "").replace(" ", "").split(","))
            options = {k.removeprefix(_OPTION): v for k, v in attributes.items() if k.startswith(_OPTION)}
            inside = Control(name, _KINDS[tag], to_names, options, _pixels(options.pop("min_area", None)))
            self.controls.append(inside)
        elif tag == "Label" and inside is not None and (value or attributes.get("alias")):
            inside.labels.append(Label(value, attributes.get("alias", "")))
        self._open.append(inside)

    def end(self, tag: str) -> None:
        """A tag ends."""
        self._open.pop()


def _pixels(text: str | None) -> int | None:
    if text is not None and not _NUMBER.fullmatch(text):
        raise BadOption(f"label_config: tessera_min_area is {quoted(text)}; it is a number of pixels, 0 or more")
    return None if text is None else int(text)


def _refuse_doctype(name: str, *_: object) -> None:
    raise BadOption(f"label_config: a document type ({quoted(name)}) is not read; leave <!DOCTYPE …> out")
