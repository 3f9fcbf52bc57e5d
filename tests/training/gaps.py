"""Images that hold no data in places: PNGs that are transparent there.

Knows nothing of any method.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from models.types import Array
from tests.training.small_run import draw
from training.data.images import Images


def halves(folder: Path, count: int = 8) -> Images:
    """`count` drawn images of 64² pixels whose left halves hold no data."""
    images = draw(folder, count)
    for path in images.paths:
        cut(path, slice(0, 32))
    return images


def cut(path: Path, columns: slice) -> None:
    """Takes what some columns of an image's file hold."""
    image = np.array(Image.open(path).convert("RGBA"))
    image[:, columns, 3] = 0
    Image.fromarray(image).save(path)


def gap(side: int) -> Array:
    """Which cells of a grid lie in the left half: bool [side, side]."""
    return np.broadcast_to(np.arange(side) < side // 2, (side, side))
