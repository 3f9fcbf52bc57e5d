"""Polygons as a GeoPackage: one layer, in any coordinates.

Knows nothing of what the polygons are of.
Source: OGC GeoPackage 1.3 (12-128r18), which GDAL writes; OGC Simple Features (06-103r4), 8.2: well-known binary.
"""

import struct
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np

from models.errors import UsageError
from models.io.geodesy import EXTRA
from models.types import Array

_POLYGON = 3


def encode(polygons: Sequence[Sequence[Array]], fields: Mapping[str, Array], crs: str | None, layer: str) -> bytes:
    """A file's bytes, the same for the same polygons.

    polygons  their closed rings float64 [n, 2]: the outline, then holes
    fields    a value for each polygon, by name;  crs  of the rings, as WKT; None: they are in no known one

    Raises UsageError where pyogrio is not installed.
    """
    if find_spec("pyogrio") is None:
        raise UsageError(f"writing GeoPackage needs pyogrio, which is not installed: {EXTRA}")
    import pyogrio
    from pyogrio.raw import write

    # For good, and again where somebody took it away: what `warnings` offers for a while is not of one thread alone.
    warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "1970-01-01T00:00:00.000Z"})
    geometry = np.empty(len(polygons), object)
    geometry[:] = [_binary(rings) for rings in polygons]
    file = BytesIO()
    write(
        file,
        geometry,
        list(fields.values()),
        list(fields),
        layer=layer,
        driver="GPKG",
        geometry_type="Polygon",
        crs=crs,
        promote_to_multi=False,
    )
    return file.getvalue()


def _binary(rings: Sequence[Array]) -> Any:
    """Well-known binary of a polygon, little-endian."""
    parts = [struct.pack("<BII", 1, _POLYGON, len(rings))]
    for ring in rings:
        parts += [struct.pack("<I", len(ring)), ring.astype("<f8").tobytes()]
    return b"".join(parts)
