"""One image's segmentation, before it becomes bytes.

Knows nothing of formats, of HTTP, of how it was made.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from models import polygons, region_stats
from models.io.georeference import Georeference
from models.region_stats import Area
from models.types import Array
from service.timings import Timings

NO_DATA = 255  # in label maps: no cluster has this id
_NO_DATA_16 = 65535  # in those of two bytes a pixel


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
    """What a request chooses of an answer.

    alpha       the overlay's opacity;  only  the clusters drawn, None: all
    confidence  the margin map is wanted;  keep_no_data  pixels without data are shown as such
    palette     label maps as PNG are shown in color;  id_offset  is added to the ids in files
    min_area    pixels of the smallest region that polygons and run lengths tell
    unknown     the margin below which a pixel is of no cluster, None: none is
    formats     those in an archive
    file_name   what the image is called, None: nobody has said
    """

    alpha: float = 0.5
    only: frozenset[int] | None = None
    confidence: bool = False
    keep_no_data: bool = False
    palette: bool = True
    id_offset: int = 0
    min_area: int = 0
    unknown: float | None = None
    formats: tuple[str, ...] = ()
    file_name: str | None = None


class Suggestion(NamedTuple):
    """A place of an image that is decided least clearly: the pixel (x, y), its margin, the two classes it lies between;
    of a class that is alone, that one twice, and how alike it is."""

    x: int
    y: int
    margin: float
    between: tuple[int, int]


class StoredIds(NamedTuple):
    """How files hold ids: decided by the model and the offset, never by the image.

    values   uint8 or uint16 [256], of each id of a label map;  no_data  that of NO_DATA
    """

    values: Array
    no_data: int

    @classmethod
    def of(cls, count: int, offset: int) -> "StoredIds":
        """Of so many clusters, to whose ids something is added."""
        small = count + offset <= NO_DATA
        no_data = NO_DATA if small else _NO_DATA_16
        values = np.full(NO_DATA + 1, no_data, np.uint8 if small else np.uint16)
        values[:count] = np.arange(offset, offset + count)
        return cls(values, no_data)


class StoredLabels(NamedTuple):
    """A label map as files hold it.

    labels  uint8 [H, W], or uint16 where the clusters' ids, with what is added to them, leave no room for 255
    no_data  the value of pixels without a cluster
    colors  uint8 [up to 256, 3], by value; of uint8 only
    """

    labels: Array
    no_data: int
    colors: Array


@dataclass(frozen=True)
class SegmentationResult:
    """One image, segmented.

    image    RGB uint8 [H, W, 3] where the format shows it, else None
    labels   uint8 [H, W] as answers show them (level and merges applied), NO_DATA where there is no cluster
    areas    of these labels, where the image holds data
    of       what the ids are: the network's clusters, or classes that people taught
    table    uint8 [K]: which id of `labels` stands for each of the network's; every class's for itself
    suggestions  places to teach next, of classes
    valid_fraction  of the pixels: those that hold data
    georeference  of these pixels, where the format shows it and the file says so
    unknown_fraction  of the pixels: those that do and are in no cluster, as their margins are too small
    margin   float32 [H, W] where asked for, [h, w] for other JSON answers, None elsewhere
    familiarity  share of the training images that were less sure;  familiar  whether it is like them; None: not known
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
    unknown_fraction: float = 0.0
    depth_rule: str | None = None
    pages: int = 1
    orientation: int = 1
    refined: bool = False
    familiarity: float | None = None
    familiar: bool | None = None
    warnings: list[str] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)
    options: RenderOptions = field(default_factory=RenderOptions)
    of: Literal["clusters", "classes"] = "clusters"
    suggestions: tuple[Suggestion, ...] = ()

    @property
    def colors(self) -> Array:
        """uint8 [K, 3] of the clusters; with one for NO_DATA, black, as no data is shown, uint8 [256, 3] where
        labels may hold it."""
        if self.options.unknown is None and (not self.options.keep_no_data or self.valid_fraction == 1):
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

    @property
    def stored(self) -> StoredLabels:
        """The labels for a file."""
        offset, count = self.options.id_offset, len(self.style.names)
        if not offset:
            return StoredLabels(self.labels, NO_DATA, self.colors)
        values, no_data = StoredIds.of(count, offset)
        colors = np.zeros((NO_DATA + 1, 3), np.uint8)
        if values.dtype == np.uint8:
            colors[offset : offset + count] = self.style.colors
        return StoredLabels(values[self.labels], no_data, colors)

    def as_told(self) -> "SegmentationResult":
        """The same for formats that tell regions: those below `min_area` are NO_DATA, and areas are of what is told."""
        chosen = self.options
        if chosen.min_area <= 1 and (chosen.keep_no_data or self.valid_fraction == 1):
            return self
        labels = self.labels
        if chosen.min_area > 1:
            labels = polygons.without_specks(labels, chosen.min_area, NO_DATA)
        areas = region_stats.compute(labels, len(self.style.names), self.margin, ignored=NO_DATA)
        if self.margin is None:
            known = {area.id: area.confidence for area in self.areas}
            areas = [area._replace(confidence=known.get(area.id, 0.0)) for area in areas]
        return replace(self, labels=labels, areas=areas)
