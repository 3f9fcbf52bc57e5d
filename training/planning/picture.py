"""Images as training gets them, on one picture for people.

Knows nothing of plans.
"""

from pathlib import Path

import numpy as np

from models.files import write_atomically
from models.io.encode import encode
from training.config.run import Run
from training.data import crops
from training.data.images import evenly

SHOWN = 8  # images


def picture(run: Run, path: Path) -> None:
    """Eight images as training gets them, one PNG: two rows of four, drawn evenly."""
    side, chosen = run.recipe.input.train_size, evenly(len(run.images), SHOWN)
    tiles = [crops.square(run.images[i], side, run.recipe.input.interpolation) for i in chosen]
    tiles += [np.full((side, side, 3), 255, np.uint8)] * (-len(tiles) % (SHOWN // 2))
    rows = [np.concatenate(tiles[i : i + SHOWN // 2], axis=1) for i in range(0, len(tiles), SHOWN // 2)]
    png = encode(np.ascontiguousarray(np.concatenate(rows)), "png")
    write_atomically(path, lambda file: file.write(png))
