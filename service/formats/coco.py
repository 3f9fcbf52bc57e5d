"""Label maps as COCO's annotations.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from typing import Any

import orjson

from models.region_stats import Area
from models.run_length import run_lengths
from service.formats.registry import renders
from service.formats.result import NO_DATA, SegmentationResult

IMAGE = "image.png"  # where nobody has said what it is called
_FOUND = {"clusters": "clusters found without labels", "classes": "classes taught by example"}
_KIND = {"clusters": "cluster", "classes": "class"}
_FIRST = 1  # category of cluster 0: 0 is nothing to some readers, and annotations of id 0 are passed over


@renders("application/json", name="coco", accept=False, margin="grid", offset=True, bytes_per_px=6)
def coco(result: SegmentationResult) -> bytes:
    """One annotation for each cluster that is present, its pixels as compressed run lengths; ids begin at 1."""
    told = result.as_told()
    counts = {run.id: run.counts for run in run_lengths(told.labels, ignored=NO_DATA)}
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": category(result, area.id),
            "cluster_id": area.id,
            "segmentation": {"size": told.labels.shape, "counts": counts[area.id]},
            "area": area.pixels,
            "bbox": area.bbox,
            "iscrowd": 0,
            "score": round(area.confidence, 4),
        }
        for number, area in enumerate(told.areas, 1)
    ]
    return orjson.dumps(head(told, told.areas) | {"annotations": annotations, "categories": categories(result)})


def category(result: SegmentationResult, cluster: int) -> int:
    """A cluster's id as a category."""
    return cluster + _FIRST + result.options.id_offset


def head(result: SegmentationResult, areas: list[Area]) -> dict[str, Any]:
    """Who answers, and the image, which says the clusters that are present.

    areas  of what is told of it
    """
    height, width = result.labels.shape
    return {
        "info": {
            "description": f"segmented by {result.model}; {_FOUND[result.of]}: {result.k}",
            "model": result.model,
            "digest": result.digest,
            "id_offset": result.options.id_offset,
            "familiarity": result.familiarity,
            "familiar": result.familiar,
            "warnings": result.warnings,
        },
        "licenses": [],
        "images": [
            {
                "id": 1,
                "file_name": result.options.file_name or IMAGE,
                "width": width,
                "height": height,
                "clusters": sorted(area.id for area in areas),
            }
        ],
    }


def categories(result: SegmentationResult) -> list[dict[str, Any]]:
    """All clusters that answers of this kind may show, present or not."""
    style = result.style
    return [
        {
            "id": category(result, cluster),
            "name": style.names[cluster],
            "supercategory": _KIND[result.of],
            "isthing": 0,
            "color": style.colors[cluster].tolist(),
            "cluster_id": cluster,
            **({"hidden": True} if cluster in style.hidden else {}),
        }
        for cluster in sorted({int(cluster) for cluster in result.table})
    ]
