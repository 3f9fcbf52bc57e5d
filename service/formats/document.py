"""The JSON answer.

Knows nothing of HTTP, of networks, of where the image came from.
"""

import base64
from typing import Any

import numpy as np
import orjson

from models import palette
from models.io.encode import encode
from models.io.png import encode_palette
from service.formats.registry import renders
from service.formats.result import SegmentationResult

_OWN_IDS = "id_offset is added in png, npy, coco, panoptic and geotiff; ids in this document are the clusters' own"


@renders("application/json", name="json", margin="grid")
def json(result: SegmentationResult) -> bytes:
    """Everything in words and numbers, the label map inside as a palette PNG: `responses.Segmentation`."""
    answer = {**head(result), "label_map": _encoded(encode_palette(result.labels, result.colors))}
    if result.of == "classes":
        answer["suggestions"] = [place._asdict() for place in result.suggestions]
    if result.options.confidence and result.margin is not None:
        answer["confidence_map"] = _encoded(encode(np.rint(result.margin * 255).astype(np.uint8), "png"))
    return orjson.dumps(answer | facts(result))


def head(result: SegmentationResult) -> dict[str, Any]:
    """Who answers, and which clusters or classes are present."""
    height, width = result.labels.shape
    style = result.style
    labeled = sum(area.pixels for area in result.areas)
    return {
        "model": result.model,
        "digest": result.digest,
        "width": width,
        "height": height,
        "k": result.k,
        "of": result.of,
        "clusters": [
            {
                "id": area.id,
                "name": style.names[area.id],
                "color": palette.to_hex(style.colors[area.id]),
                "pixels": area.pixels,
                "fraction": area.pixels / labeled,
                "bbox": area.bbox,
                "confidence": round(area.confidence, 4),
                **({"hidden": True} if area.id in style.hidden else {}),
            }
            for area in result.areas
        ],
    }


def facts(result: SegmentationResult) -> dict[str, Any]:
    """What else is told of an image."""
    return {
        "valid_fraction": result.valid_fraction,
        "unknown_fraction": result.unknown_fraction,
        "pages": result.pages,
        "orientation": result.orientation,
        "depth_rule": result.depth_rule,
        "refined": result.refined,
        "familiarity": result.familiarity,
        "familiar": result.familiar,
        "warnings": [*result.warnings, *([_OWN_IDS] if result.options.id_offset else [])],
        "timings_ms": {stage: round(ms, 2) for stage, ms in result.timings.so_far().items()},
    }


def _encoded(file: bytes) -> dict[str, str]:
    return {"encoding": "png", "data": base64.b64encode(file).decode()}
