"""Several formats of one segmentation in an archive.

Knows nothing of HTTP, of networks, of where the image came from.
"""

from service.formats import registry
from service.formats.archive_file import archive
from service.formats.registry import Renderer, renders
from service.formats.result import SegmentationResult

USUAL = ("json", "png", "overlay", "confidence", "coco")  # where nothing is said


@renders("application/zip", name="zip", photo=True, margin="full", georeference=True, offset=True, bytes_per_px=12)
def zip(result: SegmentationResult) -> bytes:
    """A file for each format that `formats` names: segmentation.png, segmentation.overlay.jpg …"""
    names = result.options.formats or USUAL
    return archive({f"segmentation{registry.suffix(name)}": _format(name).render(result) for name in names})


def narrowed(formats: tuple[str, ...]) -> Renderer[bytes]:
    """The archive of these formats, or of the usual ones: it needs what they need."""
    packed = [_format(name) for name in formats or USUAL]
    margins = [one.margin for one in packed]
    return _format("zip")._replace(
        photo=any(one.photo for one in packed),
        margin="full" if "full" in margins else "grid" if "grid" in margins else None,
        georeference=any(one.georeference for one in packed),
    )


def _format(name: str) -> Renderer[bytes]:
    return next(renderer for renderer in registry.RENDERERS if renderer.name == name)
