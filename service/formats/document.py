"""The JSON answer.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from models import palette
from models.io.encode import encode
from models.io.png import encode_palette
from service.formats.registry import renders

if TYPE_CHECKING:
    from service.formats.result import Result


@renders("application/json", name="json")
def json(result: Result) -> bytes:
    """Everything in words and numbers, the label map inside as a palette PNG: `schemas.Segmentation`."""
    started = time.perf_counter()
    height, width = result.labels.shape
    look = result.style
    answer: dict[str, Any] = {
        "model": result.model,
        "digest": result.digest,
        "width": width,
        "height": height,
        "k": result.k,
        "clusters": [
            {
                "id": area.id,
                "name": look.names[area.id],
                "color": palette.to_hex(look.colors[area.id]),
                "pixels": area.pixels,
                "fraction": area.pixels / (height * width),
                "bbox": area.bbox,
                "confidence": round(area.confidence, 4),
                **({"hidden": True} if area.id in look.hidden else {}),
            }
            for area in result.areas
        ],
        "label_map": _encoded(encode_palette(result.labels, look.colors)),
    }
    if result.options.confidence and result.margin is not None:
        answer["confidence_map"] = _encoded(encode(np.rint(result.margin * 255).astype(np.uint8), "png"))
    encode_ms = (time.perf_counter() - started) * 1000
    answer |= {
        "depth_rule": result.depth_rule,
        "refined": result.refined,
        "warnings": result.warnings,
        "timings_ms": {stage: round(ms, 2) for stage, ms in {**result.timings, "encode": encode_ms}.items()},
    }
    return orjson.dumps(answer)


def _encoded(file: bytes) -> dict[str, str]:
    return {"encoding": "png", "data": base64.b64encode(file).decode()}
