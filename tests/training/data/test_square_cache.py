"""training/data/square_cache.py: an image is decoded once, and what is kept is what was decoded."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from models.io.samples import Decoded
from tests.training.small_run import draw
from training.data import crops, square_cache
from training.data.images import Images
from training.data.square_cache import SquareCache


class Counted(Images):
    """Images that remember which of them were decoded; of the first one, the left half holds no data."""

    def __init__(self, images: Images) -> None:
        super().__init__(images.root, images.paths)
        self.decoded: list[int] = []

    def load(self, i: int) -> Decoded:
        self.decoded.append(i)
        found = super().load(i)
        valid = np.indices(found.image.shape[:2])[1] >= 32 if i == 0 else None
        return Decoded(found.image, valid=valid)


@pytest.fixture
def images(tmp_path: Path) -> Counted:
    return Counted(draw(tmp_path / "images", count=3))


def test_every_image_is_decoded_once(images: Counted, tmp_path: Path) -> None:
    cache = SquareCache(images, (32, 64), tmp_path, Console(quiet=True))
    for _ in range(2):
        for i in (2, 0, 1):
            for size in (64, 32):
                pixels, valid = cache.load(i, size)
                assert np.array_equal(pixels, crops.square(Images.load(images, i).image, size))
                assert (valid is None) == (i != 0)
    assert images.decoded == [2, 0, 1]
    _, valid = cache.load(0, 32)
    assert valid is not None
    assert valid[:, 16:].all()
    assert not valid[:, :16].any()
    assert not [path for path in tmp_path.iterdir() if path.is_file()]  # nothing is left to whoever comes next


def test_without_room_images_are_decoded_each_time(
    images: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(square_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    cache = SquareCache(images, (32, 64), tmp_path, Console())
    assert "decoded anew each time" in capsys.readouterr().out
    first, again = cache.load(1, 32)[0], cache.load(1, 32)[0]
    assert np.array_equal(first, again)
    assert images.decoded == [1, 1]
