"""Label maps as GeoPackage: a polygon for each connected region, in the coordinates of the source.

Knows nothing of how that is written: `models.io.geopackage` does.
"""

import numpy as np

from models import palette
from models.errors import UsageError
from models.io import placement
from models.io.geopackage import encode
from models.io.placement import NotPlaced, Placement
from service.errors import BadOption
from service.formats.geojson import placed, regions_of
from service.formats.registry import renders
from service.formats.result import SegmentationResult

_PIXELS = Placement(lambda corners: corners * [1, -1], np.inf, None)  # y grows upwards, as maps have it


@renders("application/geopackage+sqlite3", name="gpkg", accept=False, margin="full", georeference=True, offline=True)
def gpkg(result: SegmentationResult) -> bytes:
    """One layer, `regions`: connected regions on pixel edges, each with its cluster, name, color, pixels and mean
    margin. Where the source lies nowhere they are in pixels, y downwards negative."""
    told = result.as_told()
    found, way, (height, width) = regions_of(told), _PIXELS, result.labels.shape
    try:
        if result.georeference is not None:
            way = placement.to_own(result.georeference, (height, width))
        there = placed(found, way)
    except NotPlaced as error:
        result.warnings.append(f"the GeoPackage is in pixels: {error}")
        there, way = placed(found, _PIXELS), _PIXELS
    style = result.style
    names, colors = np.array(style.names, object), np.array([palette.to_hex(color) for color in style.colors], object)
    fields = {
        "cluster_id": found.ids,
        "name": names[found.ids],
        "color": colors[found.ids],
        "pixels": found.pixels,
        "score": found.scores.round(4),
    }
    try:
        return encode([region.rings for region in there], fields, way.crs, "regions")
    except UsageError as error:
        raise BadOption(str(error)) from None
