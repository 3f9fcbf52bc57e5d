"""One image's segmentation, before it becomes bytes.

Knows nothing of formats, of HTTP, of how it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from models.region_stats import Area
from models.types import Array
from service.inference.options import Options


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


@dataclass(frozen=True)
class Result:
    """One image, segmented.

    image    RGB uint8 [H, W, 3] where the format shows it, else None
    labels   uint8 [H, W] as answers show them (level and merges applied);  areas  of these labels
    found    areas of the network's own ids
    table    uint8 [K]: which id of `labels` stands for each of the network's
    margin   float32 [H, W] where asked for, [h, w] for other JSON answers and a sample of the rest, None elsewhere
    timings  milliseconds by stage, `encode` not yet
    """

    model: str
    digest: str
    k: int
    options: Options
    image: Array | None
    labels: Array
    table: Array
    found: list[Area]
    areas: list[Area]
    style: ClusterStyle
    margin: Array | None
    depth_rule: str | None
    refined: bool
    warnings: list[str]
    timings: dict[str, float] = field(default_factory=dict)
