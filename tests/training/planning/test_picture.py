"""The picture of a plan shows what training will see."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.training.small_run import draw, small_run
from training.data import crops
from training.planning.picture import picture


def test_the_picture_shows_eight_prepared_images(tmp_path: Path) -> None:
    run = small_run(tmp_path, images=draw(tmp_path / "images", 9, side=96))
    picture(run, tmp_path / "plan.png")
    with Image.open(tmp_path / "plan.png") as shown:
        assert shown.size == (4 * 64, 2 * 64)
        tile = np.asarray(shown)[:64, :64]
    assert np.array_equal(tile, crops.square(run.images[0], 64))
    few = small_run(tmp_path, images=draw(tmp_path / "few", 5))
    picture(few, tmp_path / "few.png")
    with Image.open(tmp_path / "few.png") as shown:
        assert (np.asarray(shown)[64:, 64:] == 255).all()
