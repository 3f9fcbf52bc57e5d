"""The largest regions of a map, for editors in which people change them: more than some hundreds make them slow.

Knows nothing of any dialect.
"""

from typing import NamedTuple

import numpy as np

from models.errors import TesseraError
from models.polygons import Region, regions
from models.types import Array
from service.formats.result import NO_DATA

_SMALL_PX = 16


class Largest(NamedTuple):
    """The regions, the largest first, and a sentence for people where some are left out."""

    regions: list[Region]
    told: str


def largest_regions(labels: Array, margin: Array | None, *, min_area: int, most: int) -> Largest:
    """Those of a label map uint8 [H, W] with at least so many pixels, and so many of them."""
    while True:
        try:
            found = regions(labels, margin, min_area=min_area, ignored=NO_DATA)
            break
        except TesseraError:  # too much to be told
            min_area = max(_SMALL_PX, 4 * min_area)
    told = ""
    if found.pixels.sum() < np.count_nonzero(labels != NO_DATA):
        told = f"regions of fewer than {min_area} pixels are left out"
    if len(found) > most:
        told = f"the {most} largest regions are shown, with {int(np.sort(found.pixels)[-most])} pixels or more"
    shown = sorted(found, key=lambda region: -region.pixels)[:most]
    return Largest(shown, told)
