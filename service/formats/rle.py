"""Label maps as run lengths.

Knows nothing of HTTP, of networks, of where the image came from.
"""

import orjson

from models.run_length import run_lengths
from service.formats.document import facts, head
from service.formats.registry import renders
from service.formats.result import NO_DATA, SegmentationResult


@renders("application/json", name="rle", accept=False, margin="grid", bytes_per_px=6)
def rle(result: SegmentationResult) -> bytes:
    """The JSON answer with COCO's run lengths of each cluster, as pycocotools compresses them, in place of the map."""
    told = result.as_told()
    answer = head(told)
    counts = {run.id: run.counts for run in run_lengths(told.labels, ignored=NO_DATA)}
    for cluster in answer["clusters"]:
        cluster["rle"] = {"size": told.labels.shape, "counts": counts[cluster["id"]]}
    return orjson.dumps(answer | {"min_area": result.options.min_area} | facts(result))
