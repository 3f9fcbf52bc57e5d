"""A picture that is too large to be held, read from its file in rows: what every reader of one answers.

Knows nothing of formats, of clusters, of networks.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from models.io.samples import Size
from models.types import Array

Rows = tuple[Array, Array | None]  # RGB uint8 [n, W, 3] and where they are valid, bool [n, W]; None: everywhere


class RowSource(Protocol):
    """Rows of a picture, each read from the file once where they are asked for from the top on.

    size         (H, W) of the picture, or of the level of it that was chosen
    pages, depth_rule, warnings  as `models.io.samples.Decoded` has them
    held_bytes   that it holds at most
    """

    size: Size
    pages: int
    depth_rule: str | None
    warnings: tuple[str, ...]
    held_bytes: int

    def rows(self, top: int, bottom: int) -> Rows:
        """Those from `top` to before `bottom`; never above those asked for last. Raises ImageError and its kin."""
        ...


class Rolling:
    """Rows that a file holds in units, of which only those are kept that are still asked for.

    height  rows in all;  unit  rows of one but the last;  read  gives one by its number
    """

    def __init__(self, height: int, unit: int, read: Callable[[int], Rows]) -> None:
        self._height, self._unit, self._read = height, unit, read
        self._kept: dict[int, Rows] = {}

    def rows(self, top: int, bottom: int) -> Rows:
        """Those from `top` to before `bottom`; none above them are asked for again."""
        first, last = top // self._unit, (bottom - 1) // self._unit
        for number in [number for number in self._kept if number < first]:
            del self._kept[number]
        parts = list[Rows]()
        for number in range(first, last + 1):
            if number not in self._kept:
                self._kept[number] = self._read(number)
            image, valid = self._kept[number]
            part = slice(max(0, top - number * self._unit), bottom - number * self._unit)
            parts.append((image[part], None if valid is None else valid[part]))
        if len(parts) == 1:
            return parts[0]
        valid = None
        if any(one is not None for _, one in parts):
            valid = np.concatenate([np.ones(image.shape[:2], bool) if one is None else one for image, one in parts])
        return np.concatenate([image for image, _ in parts]), valid
