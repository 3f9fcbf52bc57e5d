"""A segmented image as Label Studio's regions: brush strokes and polygons.

Knows nothing of HTTP, of XML, of where the image came from.
"""

import math
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from models.bridges import bridged
from models.brush import strokes
from models.polygons import without_specks
from models.types import Array
from service.api.protocols.label_studio.label_matching import matched, unmatched
from service.api.protocols.label_studio.labeling_config import Control
from service.api.protocols.largest_regions import largest_regions
from service.formats.result import NO_DATA, SegmentationResult

MOST_POLYGONS = 500  # of one image: an editor with more is slow
_SPECK = 1e-4  # of the image's pixels: smaller polygons are left out where nothing else is said


class Labeled(NamedTuple):
    """What one image tag's controls get of an image.

    regions   JSON of each region;  sure, pixels  the sum of the margins of its pixels, and how many they are
    warnings  what was left out
    """

    regions: list[bytes]
    sure: float
    pixels: int
    warnings: list[str]


def label(result: SegmentationResult, controls: tuple[Control, ...], image: str) -> Labeled:
    """The regions of an image, for every control of its tag. Score: mean margin of a cluster, or of a polygon."""
    found = Labeled([], sum(a.confidence * a.pixels for a in result.areas), sum(a.pixels for a in result.areas), [])
    drawn = result.drawn
    shown = {a.id: a.confidence for a in result.areas if drawn is None or a.id in drawn}
    labels = [matched(control.labels, result.style.names) for control in controls]
    if told := unmatched(result.style.names, shown, {id: name for names in labels for id, name in names.items()}):
        found.warnings.append(told)
    for control, names in zip(controls, labels, strict=True):
        wanted = {id: score for id, score in shown.items() if id in names}
        draw = _brushes if control.kind == "brushlabels" else _polygons
        for id, score, value in draw(result, control, wanted, found.warnings):
            found.regions.append(region(control, image, result.labels.shape, names[id], score, value))
    return found


def region(
    control: Control, image: str, size: tuple[int, ...], label: str, score: float, value: dict[str, Any]
) -> bytes:
    """One region as JSON.

    size  (H, W);  value  where it is
    """
    return orjson.dumps(
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": control.name,
            "to_name": image,
            "type": control.kind,
            "original_width": size[1],
            "original_height": size[0],
            "image_rotation": 0,
            "score": round(min(max(score, 0.0), 1.0), 4),
            "value": {**value, control.kind: [label]},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def brush(stroke: Array) -> dict[str, Any]:
    """A brush stroke as a region's value."""
    return {"format": "rle", "rle": stroke}


Drawn = Iterator[tuple[int, float, dict[str, Any]]]


def _brushes(result: SegmentationResult, control: Control, wanted: Mapping[int, float], warnings: list[str]) -> Drawn:
    """Cluster, score and value: one stroke each, of all its regions."""
    labels = result.labels
    if control.min_area:
        labels = without_specks(labels, control.min_area, NO_DATA)
    drawn = strokes(labels)
    for id, score in wanted.items():
        if id in drawn:
            yield id, score, brush(drawn[id])


def _polygons(result: SegmentationResult, control: Control, wanted: Mapping[int, float], warnings: list[str]) -> Drawn:
    """Cluster, score and value: the largest regions, one polygon each."""
    height, width = result.labels.shape
    least = control.min_area
    if least is None:
        least = math.ceil(_SPECK * result.labels.size)
    chosen = np.where(np.isin(result.labels, list(wanted)), result.labels, np.uint8(NO_DATA))
    largest = largest_regions(chosen, result.margin, min_area=least, most=MOST_POLYGONS)
    if largest.told:
        warnings.append(f"{control.name}: {largest.told} (tessera_min_area)")
    for one in largest.regions:
        corners = bridged(one.rings) * (100 / np.array([width, height]))
        yield one.id, one.score, {"points": np.minimum(corners, 100.0), "closed": True}
