"""What all drawings share: a picture and its label map drawn on at once, smooth noise, cells.

Knows nothing of what is drawn.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from models.types import Array

Color = tuple[int, int, int]
Point = tuple[float, float]


class Drawn(NamedTuple):
    """An image, RGB uint8 [H, W, 3], and the class of each of its pixels, uint8 [H, W]."""

    image: Array
    labels: Array


class Canvas:
    """A picture and its label map: whatever is drawn is drawn on both.

    label  what is everywhere in the beginning
    """

    def __init__(self, picture: Image.Image, label: int) -> None:
        self.picture, self.labels = picture, Image.new("L", picture.size, label)
        self._color, self._label = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.labels)

    def polygon(self, points: Sequence[Point], color: Color, label: int) -> None:
        """The inside of the corners (x, y)."""
        self._color.polygon(points, fill=color)
        self._label.polygon(points, fill=label)

    def line(self, points: Sequence[Point], color: Color, label: int, width: float) -> None:
        """A line through the points (x, y), as wide all along."""
        self._color.line(points, fill=color, width=round(width), joint="curve")
        self._label.line(points, fill=label, width=round(width), joint="curve")

    def ellipse(self, box: Sequence[float], color: Color, label: int) -> None:
        """What fills a box (left, top, right, bottom)."""
        self._color.ellipse(box, fill=color)
        self._label.ellipse(box, fill=label)

    def rectangle(self, box: Sequence[float], color: Color, label: int, radius: float = 0) -> None:
        """A box (left, top, right, bottom) whose corners are round by so much."""
        self._color.rounded_rectangle(box, radius, fill=color)
        self._label.rounded_rectangle(box, radius, fill=label)

    def reduced(self, size: tuple[int, int]) -> Array:
        """The label map at another size (H, W): uint8 [H, W]."""
        return np.asarray(self.labels.resize((size[1], size[0]), Image.Resampling.NEAREST))


def smooth(height: int, width: int, cell: float, rng: np.random.Generator) -> Array:
    """Smooth noise float32 [H, W] of about unit spread and the given cell size in pixels."""
    coarse = rng.normal(size=(int(height // cell) + 2, int(width // cell) + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


class Grain:
    """Noise that can be looked up anywhere: at turned, stretched and bent places.

    Values are of unit spread, one a unit of length, with straight lines between; they repeat after 256.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._values = rng.normal(size=(256, 256)).astype(np.float32)

    def __call__(self, u: Array, v: Array) -> Array:
        """float32 [...] at places float [...]."""
        left, top = np.floor(u), np.floor(v)
        across, down = u - left, v - top
        i, j = left.astype(np.int64) & 255, top.astype(np.int64) & 255
        right, below = (i + 1) & 255, (j + 1) & 255
        upper = self._values[j, i] * (1 - across) + self._values[j, right] * across
        lower = self._values[below, i] * (1 - across) + self._values[below, right] * across
        found: Array = upper * (1 - down) + lower * down
        return found


def cells(u: Array, v: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Cells about one point in each unit square: how far the nearest is, how far the next, and a number 0..1.

    Source: Worley 1996, A Cellular Texture Basis Function.
    """
    points = rng.uniform(size=(64, 64, 3)).astype(np.float32)  # x and y in the square, and the number
    column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    nearest, following = np.full(u.shape, 9, np.float32), np.full(u.shape, 9, np.float32)
    number = np.zeros(u.shape, np.float32)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            point = points[(row + down) & 63, (column + across) & 63]
            far = np.hypot(column + across + point[..., 0] - u, row + down + point[..., 1] - v)
            closer = far < nearest
            following = np.where(closer, nearest, np.minimum(following, far))
            nearest, number = np.where(closer, far, nearest), np.where(closer, point[..., 2], number)
    return nearest, following, number


def turned(height: int, width: int, angle: float, scale: float = 1.0) -> tuple[Array, Array]:
    """Places (u, v) float32 [H, W] of all pixels in axes turned by an angle, in units of so many pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cosine, sine = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    return x * cosine + y * sine, y * cosine - x * sine
