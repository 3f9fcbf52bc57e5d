"""Label maps as COCO's panoptic segmentation: a picture of ids, and what they stand for.

Knows nothing of HTTP, of networks, of where the image came from.
"""

import numpy as np
import orjson

from models import region_stats
from models.io.png import encode_rgb
from service.formats import coco
from service.formats.archive_file import archive
from service.formats.registry import renders
from service.formats.result import NO_DATA, SegmentationResult


@renders("application/zip", name="panoptic", accept=False, offset=True, bytes_per_px=6)
def panoptic(result: SegmentationResult) -> bytes:
    """`panoptic.json` and `panoptic/image.png`, as panopticapi looks for them: red + 256 green + 65536 blue is the id
    of a segment, its category's, at least 1; 0 is no cluster."""
    labels = result.labels
    ids = np.zeros(NO_DATA + 1, np.uint32)
    known = np.arange(len(result.style.names))
    ids[known] = coco.category(result, 0) + known
    picture = np.ascontiguousarray(ids.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3])[labels]
    areas = region_stats.compute(labels, len(known), ignored=NO_DATA)
    segments = [
        {
            "id": coco.category(result, area.id),
            "category_id": coco.category(result, area.id),
            "cluster_id": area.id,
            "area": area.pixels,
            "bbox": area.bbox,
            "iscrowd": 0,
        }
        for area in areas
    ]
    document = coco.head(result, areas) | {
        "annotations": [{"image_id": 1, "file_name": coco.IMAGE, "segments_info": segments}],
        "categories": coco.categories(result),
    }
    return archive({"panoptic.json": orjson.dumps(document), f"panoptic/{coco.IMAGE}": encode_rgb(picture)})
