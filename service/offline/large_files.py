"""Pictures that are too large to be held: from their file to a file, window by window, one picture at a time.

Knows nothing of HTTP, or of who waits for it.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from models.deadline import Deadline
from models.io import tiff_directory
from models.io.samples import ImageTooLarge
from service.errors import BadOption
from service.inference.large import segment_large
from service.inference.options import Options
from service.inference.windowed import through_queue
from service.offline.sources import Item
from service.repository.served_model import Served


def takes(item: Item) -> bool:
    """Whether this image could be read in windows: it lies on this machine, and is a TIFF or a Zarr store."""
    if item.path is None or item.store:
        return item.store
    with item.path.open("rb") as file:
        return file.read(4) in tiff_directory.MAGIC


def check(item: Item, options: Options, formats: Sequence[str], refused: ImageTooLarge | None) -> None:
    """Raises what an image that is read in windows could not be given, in words.

    refused  why it is not read as a whole
    """
    if refused is not None and options.tile == "never":
        raise refused
    if options.refine is not None:
        raise BadOption("crf: edges are not refined in windows, in which an image of this size is read; leave crf out")
    if not item.store and tuple(formats) != ("geotiff",):
        asked = ", ".join(formats)
        raise ImageTooLarge(
            f"{refused}; in windows an image of any size is written as geotiff, and this asks for {asked}: run it with"
            " --format geotiff and another --out"
        )


async def segment(
    item: Item,
    out: Path,
    served: Served,
    options: Options,
    *,
    caller: str,
    until: Deadline,
    progress: Callable[[int, int], object],
) -> tuple[str, ...]:
    """One picture's label map, in `out`; what is told besides. Raises what `segment_large` raises.

    progress  told, in a thread, of the windows that are done, and of how many there are
    """
    assert item.path is not None
    path, table, style = item.path, served.clusters.table(options.k), served.clusters.style
    loop = asyncio.get_running_loop()
    predict = through_queue(served, loop, key=caller, priority=options.priority, deadline=until.at)
    try:
        told = await asyncio.to_thread(
            segment_large,
            path,
            out,
            served.bundle.manifest,
            predict,
            options,
            style=style,
            table=table,
            until=until,
            progress=progress,
        )
    except asyncio.CancelledError:
        until.cancel()
        raise
    return told.warnings
