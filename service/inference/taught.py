"""Classes in place of clusters: score maps of what people taught, places that are shown to them, places to ask about.

Knows nothing of HTTP, or of where classes are kept. All of it follows from what one pass of the network left of an
image.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from models import assign
from models.io import mask_file
from models.io.samples import Limits
from models.manifest import Manifest
from models.prototypes import code_at
from models.types import Array, Box
from service.errors import BadOption
from service.formats.result import Suggestion
from service.inference.options import ExampleOptions
from service.inference.results import NetworkOutput
from service.repository.classes import ClassState

_APART = 1 / 8  # of an image's longer side, between two places that are suggested
_AROUND = 1  # places of the grid to each side, over which a margin is averaged


class Place(NamedTuple):
    """What is kept of a place that was pointed at: its code float32 [D] of length 1, and (x, y) of its middle as
    fractions of the image; and the share of its pixels that were the class before."""

    code: Array
    at: tuple[float, float]
    agrees: float


class Decided(NamedTuple):
    """Of every place of the patch grid that the image fills: margin float32 [h, w], best less second best cosine, or of
    a class that is alone its cosine; the ids of the two, uint8 [h, w]."""

    margin: Array
    best: Array
    second: Array


def as_classes(output: NetworkOutput, taught: ClassState) -> NetworkOutput:
    """The same image with a score map for every class; one that was seen in windows is as it is: it was seen so."""
    if output.labels is not None:
        return output
    classifier = taught.classifier
    assert classifier is not None
    assert output.code is not None
    scores = np.ascontiguousarray(classifier.scores(output.code, output.scores, output.box), np.float32)
    return replace(output, scores=scores, ids=classifier.ids, serial=taught.serial, temperature=classifier.temperature)


def decided(manifest: Manifest, output: NetworkOutput) -> Decided | None:
    """How clearly each place of the patch grid is one class, and between which two; None of images that were seen in
    windows.

    output  of `as_classes`
    """
    if output.ids is None or output.code is None:
        return None
    size, how = assign.cells(output.scores.shape[1:], output.box), manifest.code.interpolation
    found = assign.ranked(output.scores, output.code, size, box=output.box, interpolation=how)
    return Decided(found.margin, output.ids[found.best], output.ids[found.second])


def suggestions(output: NetworkOutput, found: Decided | None, count: int) -> tuple[Suggestion, ...]:
    """The places of an image around which its classes are decided least clearly, apart from each other, the least
    first; nothing is suggested for images that were seen in windows.

    Around: between any two things runs a line of small margins, and a click on it says less than one into what is
    unsure as a whole (`python -m benchmarks.teach --more` has what either is worth).
    """
    if found is None:
        return ()
    margin, places = around(found.margin), list[Suggestion]()
    if output.facts.valid is not None:
        output.facts.valid.erase(margin, np.inf)
    (height, width), size = output.source, margin.shape
    rows = (np.arange(size[0]) + 0.5)[:, None] / size[0] * height
    columns = (np.arange(size[1]) + 0.5)[None] / size[1] * width
    near = (_APART * max(height, width)) ** 2
    while len(places) < count and np.isfinite(least := margin.min()):
        y, x = np.unravel_index(int(margin.argmin()), margin.shape)
        between = int(found.best[y, x]), int(found.second[y, x])
        places.append(Suggestion(int(columns[0, x]), int(rows[y, 0]), round(float(least), 4), between))
        margin[(rows - rows[y, 0]) ** 2 + (columns - columns[0, x]) ** 2 < near] = np.inf
    return tuple(places)


def around(margin: Array) -> Array:
    """Every place's mean margin with the places beside it that lie in the image: float32 [h, w]."""
    for axis in (0, 1):
        size = margin.shape[axis]
        sums = np.insert(np.cumsum(margin, axis=axis, dtype=np.float64), 0, 0.0, axis=axis)
        low, high = np.maximum(np.arange(size) - _AROUND, 0), np.minimum(np.arange(size) + _AROUND + 1, size)
        counts = (high - low).reshape((-1, 1) if axis == 0 else (1, -1))
        margin = (np.take(sums, high, axis=axis) - np.take(sums, low, axis=axis)) / counts
    return margin.astype(np.float32)


def place_of(
    options: ExampleOptions,
    mask: bytes | None,
    id: int,
    manifest: Manifest,
    output: NetworkOutput,
    taught: ClassState,
    limits: Limits,
) -> Place:
    """The place of an image that a request points at. Raises BadOption, and ImageError for the mask.

    id  of the class it is said of: `agrees` is about that one
    """
    assert output.code is not None
    height, width = output.source
    if mask is not None:
        parts = [_cut(mask_file.decode(mask, output.source, limits))]
    elif (box := options.area) is not None:
        left, top, across, down = box
        if left + across > width or top + down > height:
            raise BadOption(f"box: {options.box} reaches beyond the image's {width}×{height} pixels")
        parts = [_Part(np.ones((down, across), bool), top, left)]
    else:
        for x, y in options.places:
            if not (x < width and y < height):
                raise BadOption(f"x, y: the pixel x = {x}, y = {y} is outside of the image's {width}×{height}")
        parts = [_Part(np.ones((1, 1), bool), y, x) for x, y in options.places]
    if output.facts.valid is not None:
        seen = output.facts.valid.erase(np.ones(output.source, np.uint8), 0)
        parts = [part._replace(mask=part.mask & (part.of(seen) != 0)) for part in parts]
    parts = [part for part in parts if part.mask.any()]
    if not parts:
        why = "marks no pixel" if output.facts.valid is None else "holds no data, by what the file says"
        raise BadOption(f"the place {why}; point at another")
    how, whole = manifest.code.interpolation, output.source
    codes = [code_at(output.code, part.mask, part.box(output.box, whole), how) for part in parts]
    code = np.stack(codes).astype(np.float64).sum(axis=0)
    if not (length := float(np.linalg.norm(code))) > 0:
        raise BadOption("the network says nothing of this place: its code is 0; point at another")
    pixels = [int(part.mask.sum()) for part in parts]
    middles = [part.middle for part in parts]
    y, x = np.average(middles, axis=0, weights=pixels).tolist()
    agreeing, at = 0, (round(x / width, 6), round(y / height, 6))
    if taught.taught:
        classes = as_classes(output, taught)
        assert classes.ids is not None
        for part in parts:
            labels = assign.labels(classes.scores, part.mask.shape, part.box(output.box, whole), how)
            agreeing += int((classes.ids[labels] == id)[part.mask].sum())
    return Place((code / length).astype(np.float32), at, round(agreeing / sum(pixels), 4))


class _Part(NamedTuple):
    """Some pixels that belong together: bool [h, w], and where its upper left pixel lies."""

    mask: Array
    top: int
    left: int

    @property
    def middle(self) -> tuple[float, float]:
        """(y, x) of the marked pixels' mean."""
        rows, columns = self.mask.sum(axis=1), self.mask.sum(axis=0)
        total = max(1, int(rows.sum()))
        y = float(rows @ (np.arange(len(rows)) + 0.5)) / total
        x = float(columns @ (np.arange(len(columns)) + 0.5)) / total
        return self.top + y, self.left + x

    def of(self, map_: Array) -> Array:
        """The part of a map of the whole image."""
        return map_[self.top : self.top + self.mask.shape[0], self.left : self.left + self.mask.shape[1]]

    def box(self, box: Box, size: tuple[int, int]) -> Box:
        """The part of the grid that it is, where `box` is the whole image's, of `size`."""
        (top, left, down, across), (height, width), (rows, columns) = box, size, self.mask.shape
        return (
            top + down * self.top / height,
            left + across * self.left / width,
            down * rows / height,
            across * columns / width,
        )


def _cut(mask: Array) -> _Part:
    """The rows and columns in which anything is marked."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return _Part(mask[:1, :1], 0, 0)
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _Part(inside, int(rows[0]), int(columns[0]))
