"""Several formats of one segmentation in an archive.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from service.formats import registry
from service.formats.archive_file import archive
from service.formats.registry import renders
from service.formats.result import SegmentationResult

USUAL = ("json", "png", "overlay", "confidence", "coco")  # where nothing is said


@renders("application/zip", name="zip", photo=True, margin="full", georeference=True, offset=True, bytes_per_px=12)
def zip(result: SegmentationResult) -> bytes:
    """A file for each format that `formats` names: segmentation.png, segmentation.overlay.jpg …"""
    first = {renderer.name: renderer for renderer in reversed(registry.RENDERERS)}
    names = result.options.formats or USUAL
    return archive({f"segmentation{registry.suffix(name)}": first[name].render(result) for name in names})
