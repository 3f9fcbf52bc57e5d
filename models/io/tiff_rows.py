"""Rows of a TIFF that is too large to be held: tiles and strips are read from the file, each once, none but a few kept.

Knows nothing of clusters, of networks. What samples mean, and which are shown, is `tiff`'s: the same file read as a
whole gives the same pixels, but for the range of deep samples. That is taken once, of a smaller level of the picture
where the file has one, else of pieces that lie evenly over it, and is the same for all rows.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.io import stretch, tiff
from models.io.file_bytes import FileBytes
from models.io.rows import Rolling, Rows
from models.io.samples import Choice, Limits, NoSuchPart, UnsupportedImage
from models.io.tiff import Plan, Samples
from models.io.tiff_directory import Contents, Picture
from models.io.tiff_segments import Segments
from models.types import Array

PIECE_BYTES = 64 * 2**20  # of one tile or packed strip, unpacked
PLAIN_BYTES = 4 * 2**20  # that are read at once of one that is not packed
_LEAST_ROWS = 64  # that are brought to colors at once
_LEVEL_PX = (2**18, 2**22)  # of the level that the range of samples is taken of, at least and at most
_SAMPLE_PX = 2**24  # that pieces are read of where there is none
_KEPT_PX = 2**21  # of them, evenly
_PIECES = (16, 1024)


class TiffRows:
    """Of one picture in an open file, as `models.io.rows.RowSource` has it.

    Raises ImageTooLarge for one whose pieces are too large to be read one by one.
    """

    def __init__(self, data: FileBytes, limits: Limits, choice: Choice) -> None:
        contents = Contents(data)
        if contents.raw:
            raise UnsupportedImage("this is a camera raw file, which is not opened; develop it, or take its JPEG")
        self.pages = len(contents.pictures)
        if choice.page >= self.pages:
            raise NoSuchPart(f"page {choice.page}: this file has {self.pages} page(s), counted from 0")
        picture = contents.pictures[choice.page]
        plan = tiff.make_plan(picture, contents, limits, choice, at_once=False)
        if plan.orientation != 1:
            raise UnsupportedImage(
                f"this TIFF is stored turned (orientation {plan.orientation}), and large ones are read as they are"
                " stored; write it upright"
            )
        for part in plan.parts:
            part.cut_strips(PLAIN_BYTES, PIECE_BYTES)
        self._plan, self._choice = plan, choice
        self.size, self.warnings = plan.size, plan.warnings
        self._between: tuple[float, float] | None = None
        self.depth_rule: str | None = None
        if tiff.stretched(plan, choice):
            self._take_range(picture, contents, limits)
        part = plan.parts[0]
        self._per = max(1, _LEAST_ROWS // part.rows)
        unit = self._per * part.rows
        self._rolling = Rolling(self.size[0], unit, self._unit)
        self._mask = None if plan.mask is None else _MaskRows(plan.mask, self.size)
        samples = len(plan.bands.colors) * (1 if plan.convert else part.dtype.itemsize)
        self.held_bytes = unit * self.size[1] * (samples + 2 * 4) + 2 * part.nbytes

    def rows(self, top: int, bottom: int) -> Rows:
        """RGB uint8 [n, W, 3] of rows that lie no higher than those asked for last, and where they are valid."""
        return self._rolling.rows(top, bottom)

    def _unit(self, number: int) -> Rows:
        part = self._plan.parts[0]
        down = range(number * self._per, min((number + 1) * self._per, part.down))
        read = tiff.read_rows(self._plan, down)
        mask = None
        if self._mask is not None:
            mask = self._mask.rows(down.start * part.rows, down.start * part.rows + len(read.values))
        image, valid, _ = tiff.shown(self._plan, read, mask, self._choice, self._between)
        return image, valid

    def _take_range(self, picture: Picture, contents: Contents, limits: Limits) -> None:
        """The values that become 0 and 255, of what stands for the whole."""
        plan, where = self._plan, ""
        levels = [n for n, (first, *_) in enumerate(picture.levels, 1)
                  if _LEVEL_PX[0] <= first.size[0] * first.size[1] <= _LEVEL_PX[1]]  # fmt: skip
        if levels and not self._choice.level:
            level = tiff.make_plan(picture, contents, limits, replace(self._choice, level=levels[0], enough=None))
            read = tiff.read_rows(level, range(level.parts[0].down))
            where = f"of level {levels[0]} of the pyramid"
        else:
            read, where = _sampled(plan)
        valid = read.valid
        if read.opacity is not None:
            valid = read.opacity > 0 if valid is None else valid & (read.opacity > 0)
        if read.values.dtype != np.uint8 or plan.convert is not None:
            keys = {name: value for name, value in tiff.stretch_of(plan).items() if name in ("bits", "nodata")}
            self._between = stretch.span(read.values, self._choice.depth, valid=valid, **keys)
        _, _, rule = tiff.shown(plan, Samples(read.values[:1, :1], None, None), None, self._choice, self._between)
        self.depth_rule = rule and f"{rule}, {where}"


class _MaskRows:
    """Opacity by a mask page of the picture's own size, in rows."""

    def __init__(self, segments: Segments, size: tuple[int, int]) -> None:
        if segments.size != size:
            raise UnsupportedImage("the mask of this TIFF has another size than its picture; write it with GDAL")
        segments.cut_strips(PLAIN_BYTES, PIECE_BYTES)
        self._segments = segments
        self._per = max(1, _LEAST_ROWS // segments.rows)
        self._rolling = Rolling(size[0], self._per * segments.rows, self._unit)

    def rows(self, top: int, bottom: int) -> Array:
        """uint8 [n, W]."""
        return self._rolling.rows(top, bottom)[0]

    def _unit(self, number: int) -> Rows:
        segments, first = self._segments, number * self._per
        last = min(first + self._per, segments.down)
        height = min(last * segments.rows, segments.size[0]) - first * segments.rows
        opacity = np.zeros((height, segments.size[1]), np.uint8)
        for row in range(first, last):
            for column in range(segments.across):
                if (block := segments.read(0, row, column)) is not None:
                    top, left = (row - first) * segments.rows, column * segments.columns
                    place = slice(top, top + block.shape[0]), slice(left, left + block.shape[1])
                    opacity[place] = np.where(block[..., 0] != 0, np.uint8(255), np.uint8(0))
        return opacity, None


def _sampled(plan: Plan) -> tuple[Samples, str]:
    """Samples [n, 1, bands] of pieces that lie evenly over a picture, and which they are, in words."""
    part = plan.parts[0]
    wanted = min(max(_SAMPLE_PX // (part.rows * part.columns), _PIECES[0]), _PIECES[1])
    across = min(part.across, max(1, round(math.sqrt(wanted * part.across / part.down))))
    down = min(part.down, math.ceil(wanted / across))
    step = math.ceil(part.rows * part.columns * across * down / _KEPT_PX)
    values, opacity, valid = list[Array](), list[Array](), list[Array]()
    for row in range(down):
        for column in range(across):
            at = (2 * row + 1) * part.down // (2 * down), (2 * column + 1) * part.across // (2 * across)
            block = tiff.read_block(plan, *at)
            values.append(block.values.reshape(-1, 1, block.values.shape[2])[::step].copy())  # not a view of the whole
            opacity += [] if block.opacity is None else [block.opacity.reshape(-1, 1)[::step].copy()]
            valid += [] if block.valid is None else [block.valid.reshape(-1, 1)[::step].copy()]
    kind = "tiles" if part.tiled else "strips"
    read = Samples(
        np.concatenate(values), np.concatenate(opacity) if opacity else None, np.concatenate(valid) if valid else None
    )
    return read, f"of {len(values)} of {part.down * part.across} {kind}"


@contextmanager
def open_rows(path: Path, limits: Limits, choice: Choice) -> Iterator[TiffRows]:
    """Of a file, closed behind the block. Raises ImageError and its kin, and OSError."""
    with FileBytes.open(path) as data:
        yield TiffRows(data, limits, choice)
