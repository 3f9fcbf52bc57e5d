"""One image's segmentation, before it becomes bytes.

Knows nothing of formats, of HTTP, of how it was made.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from models.region_stats import Area
from models.types import Array
from service.timings import Timings


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
    """What a request chooses of a picture: the overlay's opacity, the clusters drawn (None: all), the margin map."""

    alpha: float = 0.5
    only: frozenset[int] | None = None
    confidence: bool = False


@dataclass(frozen=True)
class SegmentationResult:
    """One image, segmented.

    image    RGB uint8 [H, W, 3] where the format shows it, else None
    labels   uint8 [H, W] as answers show them (level and merges applied);  areas  of these labels
    table    uint8 [K]: which id of `labels` stands for each of the network's
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
    depth_rule: str | None = None
    refined: bool = False
    warnings: list[str] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)
    options: RenderOptions = field(default_factory=RenderOptions)

    @property
    def drawn(self) -> frozenset[int] | None:
        """The clusters a picture shows, None for all: those asked for, hidden or not; else all but the hidden."""
        if self.options.only is not None:
            return frozenset(int(self.table[i]) for i in self.options.only)
        return frozenset(range(len(self.style.names))) - self.style.hidden if self.style.hidden else None
