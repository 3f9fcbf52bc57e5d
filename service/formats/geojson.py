"""Label maps as GeoJSON: a polygon for each connected region.

Knows nothing of HTTP, of networks; of where the image came from only how its pixels become coordinates.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import orjson

from models import palette, polygons
from models.io import antimeridian, placement
from models.io.placement import NotPlaced, Placement
from models.polygons import Region, Regions, TooManyRegions
from models.types import Array
from service.errors import BadOption
from service.formats.document import facts, head
from service.formats.registry import renders
from service.formats.result import NO_DATA, SegmentationResult

_DIGITS = 10  # after the point, of degrees: a hundredth of a millimeter


class Coordinates(NamedTuple):
    """What the numbers of polygons mean.

    place  regions, whose corners are int32 x, y from the left upper corner of the left upper pixel → with those that
           are written
    parts  a region's rings → polygons, one unless they have to be cut
    says   what the document says of them
    """

    place: Callable[[Regions], Regions]
    parts: Callable[[Sequence[Array]], Sequence[Sequence[Array]]]
    says: dict[str, Any]


PIXELS = Coordinates(
    place=lambda regions: regions,
    parts=lambda rings: [rings],
    says={"coordinate_system": "pixels: x to the right, y down, from the image's upper left corner; no georeference"},
)


@renders("application/geo+json", name="geojson", margin="grid", georeference=True, bytes_per_px=16)
def geojson(result: SegmentationResult) -> bytes:
    """RFC 7946: connected regions on pixel edges, each with its cluster, pixels and mean margin. Longitude and latitude
    where the source lies somewhere; a warning says why where they are pixels all the same."""
    if result.georeference is None:
        return collection(result, PIXELS)
    try:
        height, width = result.labels.shape
        return collection(result, _on_earth(placement.to_wgs84(result.georeference, (height, width))))
    except NotPlaced as error:
        result.warnings.append(f"coordinates are in pixels: {error}")
        return collection(result, PIXELS)


def placed(regions: Regions, way: Placement) -> Regions:
    """The regions where they lie, with the corners that long edges need. Raises NotPlaced."""
    points, bounds = way.rings(regions.points, regions.bounds)
    return replace(regions, bounds=bounds).moved(points)


def _on_earth(way: Placement) -> Coordinates:
    def place(regions: Regions) -> Regions:
        there = placed(regions, way)
        return replace(there, points=np.round(there.points, _DIGITS))

    says = {"coordinate_system": f"WGS 84: longitude and latitude in degrees, by the source's {way.by}"}
    return Coordinates(place, antimeridian.parts_of, says)


def collection(result: SegmentationResult, coordinates: Coordinates) -> bytes:
    """The document in any coordinates. Raises BadOption where there is more to tell than is told."""
    told = result.as_told()
    found = coordinates.place(regions_of(told))
    start = {
        "type": "FeatureCollection",
        **head(told),
        "min_area": result.options.min_area,
        **coordinates.says,
        **facts(result),
    }
    properties = [_properties(result, cluster) for cluster in range(len(result.style.names))]
    features = b",".join(
        _feature(number, region, coordinates.parts(region.rings), properties[region.id])
        for number, region in enumerate(found, 1)
    )
    return orjson.dumps(start)[:-1] + b',"features":[' + features + b"]}"


def regions_of(told: SegmentationResult) -> Regions:
    """Those that are told, in pixels; where no margins were kept each has its cluster's.

    Raises BadOption where there is more to tell than is told.
    """
    try:
        found = polygons.regions(told.labels, told.margin, ignored=NO_DATA)
    except TooManyRegions as error:
        raise BadOption(f"min_area: {error}; leave small ones out, such as with min_area=64") from None
    if told.margin is not None:
        return found
    known = np.zeros(NO_DATA)
    for area in told.areas:
        known[area.id] = area.confidence
    return replace(found, scores=known[found.ids])


def _properties(result: SegmentationResult, cluster: int) -> dict[str, Any]:
    style = result.style
    return {
        "cluster_id": cluster,
        "name": style.names[cluster],
        "color": palette.to_hex(style.colors[cluster]),
        **({"hidden": True} if cluster in style.hidden else {}),
    }


def _feature(number: int, region: Region, parts: Sequence[Sequence[Array]], properties: dict[str, Any]) -> bytes:
    kind, coordinates = ("Polygon", parts[0]) if len(parts) == 1 else ("MultiPolygon", parts)
    feature = {
        "type": "Feature",
        "id": number,
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {**properties, "pixels": region.pixels, "score": round(region.score, 4)},
    }
    return orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY)
