"""What a call may choose, typed: the options of `POST /segment` and `/similar`, the fields of `PATCH /clusters`.

Knows nothing of what they do; the server judges them, and says which are its own.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray


class ImageOptions(TypedDict, total=False):
    """Of every call with an image. One that is None, or left out, is as the server has it."""

    model: str | None
    depth: Literal["percentile", "minmax", "full"] | None
    page: int | None
    bands: Iterable[int] | str | None
    pyramid: Literal["auto", "full"] | int | None
    timeout_ms: int | None
    priority: int | None


class SegmentOptions(ImageOptions, total=False):
    """Of `segment`, `segment_many` and `segment_as`; the last seven are for the formats of `segment_as`."""

    crf: bool | Literal["band", "fast"] | None
    crf_size: Literal["input", "source"] | None
    crf_iterations: int | None
    crf_bilateral_sxy: float | None
    crf_bilateral_srgb: float | None
    crf_bilateral_compat: float | None
    crf_gaussian_compat: float | None
    k: int | None
    tile: Literal["auto", "never", "always"] | None
    nodata: Literal["fill", "keep"] | None
    unknown: float | None
    confidence: bool | None
    classes: bool | None
    merged: bool | None
    alpha: float | None
    only: Iterable[int] | str | None
    min_area: int | None
    palette: bool | None
    id_offset: int | None
    formats: Iterable[str] | str | None
    file_name: str | None


class Place(ImageOptions, total=False):
    """Of `teach`: one place, named in one way, and what is said of it.

    x, y      a pixel;  points  several of them
    box       x, y, width, height in pixels
    mask      bool [H, W], of the image's size as a viewer shows it
    negative  the class is not what is there
    """

    x: int | None
    y: int | None
    points: Iterable[tuple[int, int]] | None
    box: tuple[int, int, int, int] | None
    mask: NDArray[np.bool_] | None
    negative: bool | None


class ClusterChange(TypedDict, total=False):
    """What `change_cluster` changes; None takes an earlier change back, and what is left out stays."""

    name: str | None
    color: str | None
    hidden: bool | None
    merged_into: int | None


def as_query(options: Mapping[str, object]) -> dict[str, str]:
    """Options as they stand in a query."""
    return {name: _text(value) for name, value in options.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(str(part) for part in value)
    return str(value)
