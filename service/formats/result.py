"""One image's segmentation, before it becomes bytes.

Knows nothing of formats, of HTTP, of how it was made.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.io.georeference import Georeference
from models.region_stats import Area
from models.types import Array
from service.timings import Timings

NO_DATA = 255  # in label maps: no cluster has this id


@dataclass(frozen=True)
class ClusterStyle:
    """One moment's view of a bundle's clusters: an answer is made with one of these, whatever PATCH does meanwhile.

    names    K words;  colors  uint8 [K, 3];  hidden  ids
    becomes  uint8 [K]: the id that stands in answers for each of the network's
    """

    names: tuple[str, ...]
    colors: Array
    hidden: frozenset[int]
    becomes: Array


class RenderOptions(NamedTuple):
    """What a request chooses of a picture: the overlay's opacity, the clusters drawn (None: all), the margin map, and
    whether pixels without data are shown as such."""

    alpha: float = 0.5
    only: frozenset[int] | None = None
    confidence: bool = False
    keep_no_data: bool = False


@dataclass(frozen=True)
class SegmentationResult:
    """One image, segmented.

    image    RGB uint8 [H, W, 3] where the format shows it, else None
    labels   uint8 [H, W] as answers show them (level and merges applied), NO_DATA where there is no cluster
    areas    of these labels, where the image holds data
    table    uint8 [K]: which id of `labels` stands for each of the network's
    valid_fraction  of the pixels: those that hold data
    georeference  of these pixels, where the format shows it and the file says so
    margin   float32 [H, W] where asked for, [h, w] for other JSON answers and a sample of the rest, None elsewhere
    """

    model: str
    digest: str
    k: int
    image: Array | None
    labels: Array
    table: Array
    areas: list[Area]
    style: ClusterStyle
    margin: Array | None = None
    georeference: Georeference | None = None
    valid_fraction: float = 1.0
    depth_rule: str | None = None
    pages: int = 1
    orientation: int = 1
    refined: bool = False
    warnings: list[str] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)
    options: RenderOptions = field(default_factory=RenderOptions)

    @property
    def colors(self) -> Array:
        """uint8 [K, 3] of the clusters; with one for NO_DATA, black, as no data is shown, uint8 [256, 3] where
        labels may hold it."""
        if not self.options.keep_no_data or self.valid_fraction == 1:
            return self.style.colors
        colors = np.zeros((NO_DATA + 1, 3), np.uint8)
        colors[: len(self.style.colors)] = self.style.colors
        return colors

    @property
    def drawn(self) -> frozenset[int] | None:
        """The clusters a picture shows, None for all: those asked for, hidden or not; else all but the hidden."""
        if self.options.only is not None:
            return frozenset(int(self.table[i]) for i in self.options.only)
        if self.style.hidden or len(self.colors) > len(self.style.names):
            return frozenset(range(len(self.style.names))) - self.style.hidden
        return None
