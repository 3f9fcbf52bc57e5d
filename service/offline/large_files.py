"""Which pictures are read in windows, from their file to a file, because they are too large to be held.

Knows nothing of how that is done: `service/inference/large_task.py` does it.
"""

from collections.abc import Sequence

from models.io.samples import ImageTooLarge
from service.inference import large
from service.inference.options import Options
from service.offline.sources import Item


def takes(item: Item) -> bool:
    """Whether this image could be read in windows: it lies on this machine, and is a TIFF or a Zarr store."""
    return item.path is not None and large.in_rows(item.path)


def check(item: Item, options: Options, formats: Sequence[str], refused: ImageTooLarge | None) -> None:
    """Raises ImageTooLarge for what an image that is read in windows is not given.

    refused  why it is not read as a whole
    """
    if refused is not None and options.tile == "never":
        raise refused
    if not item.store and tuple(formats) != ("geotiff",):
        asked = ", ".join(formats)
        raise ImageTooLarge(
            f"{refused}; in windows an image of any size is written as geotiff, and this asks for {asked}: run it with"
            " --format geotiff and another --out"
        )
