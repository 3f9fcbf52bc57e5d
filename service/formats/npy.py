"""numpy's own file.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from models.io import encode
from service.formats.registry import renders
from service.formats.result import SegmentationResult


@renders("application/x-npy", name="npy", offset=True)
def npy(result: SegmentationResult) -> bytes:
    """numpy's own file: uint8 [H, W] of cluster ids, uint16 where `id_offset` leaves no room below 255."""
    return encode.npy(result.stored.labels)
