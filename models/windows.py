"""Windows over an image that is larger than a network's input: where they lie, and how their scores are blended.

Knows nothing of files, networks or requests: the network's maps of each window go in, maps of the whole come out in
strips, from the top on, of which labels and margins are made.

A window is as large as the network's input, a pixel of it one of the image's, and begins at a cell of one grid that
all of them share. Where several show a cell, their scores of it are averaged, with weights that fall towards a
window's own border: no border shows. Scores are linear in the code, so what is averaged is the code, and labels and
margins follow from it as they do for one pass. No more than one row of windows is ever held.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from models import assign
from models.assign import Assignment, Interpolation
from models.preprocess import InputSpec, fitted_size
from models.types import Array, Box

OVERLAP = 0.25  # of a window's side, that neighbors share at least
MUCH_LARGER = 4  # times, on each side, what a network's input shows: there, one pass sees a sixteenth of the pixels
_MOST_WINDOWS = 2**22


def shrinks(size: tuple[int, int], spec: InputSpec) -> float:
    """How many times an image's side is longer than one pass of the network shows it; the side that loses least."""
    fitted = fitted_size(size, spec)
    return min(have / shown for have, shown in zip(size, fitted, strict=True))


class Window(NamedTuple):
    """One of them.

    row, column  its place among the others
    top, left    its first pixel
    """

    row: int
    column: int
    top: int
    left: int


@dataclass(frozen=True)
class Layout:
    """Where windows lie on an image.

    size     (H, W) of the image in its own pixels
    window   (h, w) of a window; it may reach beyond the image
    cell     pixels of a cell's side
    rows, columns  where they begin, in cells
    overlap  cells (down, across) in which a window's weight rises from its border
    """

    size: tuple[int, int]
    window: tuple[int, int]
    cell: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    overlap: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int], spec: InputSpec, stride: int, overlap: float = OVERLAP) -> "Layout":
        """That of an image under a network's input.

        stride   pixels of a cell of the network's grid;  overlap  of a window's side, below 1

        Raises ValueError for more windows than anybody waits for.
        """
        window = fitted_size((1, 1), spec)
        cell = math.gcd(stride, *window)
        shared = _shared(window[0] // cell, overlap), _shared(window[1] // cell, overlap)
        rows, columns = (
            _starts(math.ceil(length / cell), side // cell, own)
            for length, side, own in zip(size, window, shared, strict=True)
        )
        if len(rows) * len(columns) > _MOST_WINDOWS:
            raise ValueError(f"{size[1]}×{size[0]} pixels are {len(rows) * len(columns)} windows")
        return cls(size, window, cell, rows, columns, shared)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the cells that the windows cover together."""
        return self.rows[-1] + self.window[0] // self.cell, self.columns[-1] + self.window[1] // self.cell

    def span(self, row: int) -> tuple[int, int]:
        """The image's pixel rows that a row of windows shows: the first, and the one after the last."""
        top = self.rows[row] * self.cell
        return top, min(top + self.window[0], self.size[0])

    def in_row(self, row: int) -> Iterator[Window]:
        """One row's windows, from the left."""
        for column, start in enumerate(self.columns):
            yield Window(row, column, self.rows[row] * self.cell, start * self.cell)

    def cut(self, rows: Array, window: Window) -> Array:
        """A window's pixels uint8 [h, w, 3] out of its row's [span, W, 3]; beyond the image its border is repeated."""
        height, width = self.window
        found = rows[:height, window.left : window.left + width]
        down, across = height - found.shape[0], width - found.shape[1]
        if not (down or across):
            return np.ascontiguousarray(found)
        return np.pad(found, ((0, down), (0, across), (0, 0)), mode="edge")

    @cached_property
    def weights(self) -> tuple[Array, Array]:
        """Of every cell of each window, down float32 [rows, h] and across [columns, w]; those of one place sum to 1."""
        return (
            _weights(self.rows, self.window[0] // self.cell, self.overlap[0]),
            _weights(self.columns, self.window[1] // self.cell, self.overlap[1]),
        )


class Strip(NamedTuple):
    """Some rows of the whole, finished.

    rows  of the image, the first and the one after the last;  width  of the image
    maps  float32 [C, h, w];  box  the part of them that those rows are
    """

    rows: tuple[int, int]
    width: int
    maps: Array
    box: Box

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the rows."""
        return self.rows[1] - self.rows[0], self.width

    def labels(self, clusters: int, interpolation: Interpolation = "bilinear") -> Array:
        """The best cluster of every pixel, uint8 [rows, W]; the first `clusters` maps are their scores."""
        return assign.labels(self.maps[:clusters], self.size, self.box, interpolation)

    def margin(
        self, clusters: int, assignment: Assignment = "cosine", interpolation: Interpolation = "bilinear"
    ) -> Array:
        """How clearly it won, float32 [rows, W]; the code is in the maps after the scores."""
        scores, code = self.maps[:clusters], self.maps[clusters:]
        return assign.margin(scores, code, self.size, assignment=assignment, box=self.box, interpolation=interpolation)


class Blend:
    """The maps of windows, averaged where several show a cell, and given out from the top on."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._sums: Array | None = None  # float32 [C, h, W]: of the windows' current row, from its first cell on
        self._above: Array | None = None  # the last row of cells that was finished
        self._row = self._done = 0  # of windows, that is filled; of the image's, that were given out

    def add(self, window: Window, maps: Array) -> None:
        """What the network says of a window of the current row: float32 [C, h, w] on its grid."""
        cells = self.layout.window[0] // self.layout.cell, self.layout.window[1] // self.layout.cell
        if maps.shape[1:] != cells:
            maps = np.concatenate([strip for _, strip in assign.upsampled(maps, cells)], axis=1)
        self.add_nothing(len(maps))
        assert self._sums is not None
        down, across = self.layout.weights
        start = self.layout.columns[window.column]
        weight = down[window.row][:, None] * across[window.column]
        self._sums[:, :, start : start + cells[1]] += maps * weight

    def add_nothing(self, channels: int) -> None:
        """Windows of the current row may be left out: where none shows a cell, its maps are 0."""
        if self._sums is None:
            self._sums = np.zeros(
                (channels, self.layout.window[0] // self.layout.cell, self.layout.grid[1]), np.float32
            )

    def finish_row(self) -> Strip:
        """All windows of the current row were added: the rows of the image that no later one changes."""
        layout, sums = self.layout, self._sums
        assert sums is not None
        first, last = layout.rows[self._row], self._row + 1 == len(layout.rows)
        ready = sums.shape[1] if last else layout.rows[self._row + 1] - first
        finished = sums[:, :ready] if last else sums[:, :ready].copy()
        above = 0 if self._above is None else self._above.shape[1]
        maps = finished if self._above is None else np.concatenate([self._above, finished], axis=1)
        (height, width), cell = layout.size, layout.cell
        below = height if last else math.floor((first + ready - 0.5) * cell - 0.5) + 1
        top, (_, down, across) = self._done, maps.shape
        box = (top / cell - first + above) / down, 0.0, (below - top) / cell / down, width / cell / across
        self._above, self._done, self._row = finished[:, -1:].copy(), below, self._row + 1
        if last:
            self._sums = None
        else:
            sums[:, :-ready] = sums[:, ready:].copy()
            sums[:, -ready:] = 0
        return Strip((top, below), width, maps, box)


def _shared(cells: int, overlap: float) -> int:
    return min(max(1, round(cells * overlap)), cells - 1)


def _starts(cells: int, window: int, shared: int) -> tuple[int, ...]:
    """Where windows begin that cover so many cells, as few as share that many or more, evenly."""
    if cells <= window:
        return (0,)
    count = math.ceil((cells - shared) / (window - shared))
    return tuple(round(i * (cells - window) / (count - 1)) for i in range(count))


def _weights(starts: tuple[int, ...], window: int, shared: int) -> Array:
    at = np.arange(window, dtype=np.float64)
    profile = np.minimum(np.minimum(at + 0.5, window - at - 0.5) / max(shared, 1), 1.0)
    total = np.zeros(starts[-1] + window)
    for start in starts:
        total[start : start + window] += profile
    return np.stack([profile / total[start : start + window] for start in starts]).astype(np.float32)
