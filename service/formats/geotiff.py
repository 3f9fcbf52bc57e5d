"""Label maps as GeoTIFF, where the source lies.

Knows nothing of how that is written: `models.io.geotiff` does.
"""

from models.errors import UsageError
from models.io import geodesy
from models.io import geotiff as writer
from models.io.georeference import Georeference
from service.errors import BadOption
from service.formats.registry import renders
from service.formats.result import SegmentationResult


def _require() -> None:
    geodesy.require("format geotiff")


@renders("image/tiff", name="geotiff", georeference=True, offset=True, require=_require)
def geotiff(result: SegmentationResult) -> bytes:
    """Cloud-optimized: one band of cluster ids with colors and names, in the source's coordinates."""
    labels, no_data, colors = result.stored
    names = ("",) * result.options.id_offset + result.style.names

    def written(place: Georeference | None) -> bytes:
        return writer.encode(labels, place, names=names, colors=colors, nodata=no_data)

    try:
        return written(result.georeference)
    except UsageError as error:
        raise BadOption(str(error)) from None
    except OSError:  # coordinates that no GeoTIFF can hold
        if result.georeference is None:
            raise
        result.warnings.append("where the source lies could not be written: the GeoTIFF is in pixels")
        return written(None)
