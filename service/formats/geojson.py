"""Label maps as GeoJSON: a polygon for each connected region.

Knows nothing of HTTP, of networks; of where the image came from only how its pixels become coordinates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from models import palette, polygons
from models.polygons import Region, TooManyRegions
from models.types import Array
from service.errors import BadOption
from service.formats.document import facts, head
from service.formats.registry import renders
from service.formats.result import NO_DATA, SegmentationResult


class Coordinates(NamedTuple):
    """What the numbers of polygons mean.

    place  corners int32 [n, 2] x, y, from the left upper corner of the left upper pixel → [n, 2] as they are written
    says   what the document says of them
    """

    place: Callable[[Array], Array]
    says: dict[str, Any]


PIXELS = Coordinates(
    place=lambda corners: corners,
    says={"coordinate_system": "pixels: x to the right, y down, from the image's upper left corner; no georeference"},
)


@renders("application/geo+json", name="geojson", margin="full", bytes_per_px=16)
def geojson(result: SegmentationResult) -> bytes:
    """RFC 7946: connected regions on pixel edges, each with its cluster, pixels and mean margin."""
    return collection(result, PIXELS)


def collection(result: SegmentationResult, coordinates: Coordinates) -> bytes:
    """The document in any coordinates. Raises BadOption where there is more to tell than is told."""
    told = result.as_told()
    try:
        found = polygons.regions(told.labels, told.margin, ignored=NO_DATA)
    except TooManyRegions as error:
        raise BadOption(f"min_area: {error}; leave small ones out, such as with min_area=64") from None
    found = found.moved(coordinates.place(found.points))
    start = {
        "type": "FeatureCollection",
        **head(told),
        "min_area": result.options.min_area,
        **coordinates.says,
        **facts(result),
    }
    properties = [_properties(result, cluster) for cluster in range(len(result.style.names))]
    features = b",".join(_feature(number, region, properties[region.id]) for number, region in enumerate(found, 1))
    return orjson.dumps(start)[:-1] + b',"features":[' + features + b"]}"


def _properties(result: SegmentationResult, cluster: int) -> dict[str, Any]:
    style = result.style
    return {
        "cluster_id": cluster,
        "name": style.names[cluster],
        "color": palette.to_hex(style.colors[cluster]),
        **({"hidden": True} if cluster in style.hidden else {}),
    }


def _feature(number: int, region: Region, properties: dict[str, Any]) -> bytes:
    feature = {
        "type": "Feature",
        "id": number,
        "geometry": {"type": "Polygon", "coordinates": region.rings},
        "properties": {**properties, "pixels": region.pixels, "score": round(region.score, 4)},
    }
    return orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY)
