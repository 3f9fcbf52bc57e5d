"""Pixels without a file are read as a file of them would be."""

import numpy as np
import pytest

from models.io.decode import header_is_bounded, inspect
from models.io.encode import encode
from models.io.pixels import Pixels
from models.io.samples import Choice, ImageError, ImageTooLarge, Limits, NoSuchPart
from tests.tiny import bands

IMAGE = bands(30, 50)


@pytest.mark.parametrize("chosen", [None, (1, 2, 3), (3, 2, 1), (2,)])
def test_as_a_file_of_them(chosen: tuple[int, ...] | None) -> None:
    found = inspect(Pixels(IMAGE), choice=Choice(bands=chosen))
    file = inspect(encode(IMAGE, "png"), choice=Choice(bands=chosen))
    assert found.size == file.size == (30, 50)
    assert np.array_equal(found.decode().image, file.decode().image)
    assert found.decode().image.flags.c_contiguous
    assert header_is_bounded(Pixels(IMAGE))


def test_they_are_taken_as_they_are() -> None:
    assert inspect(Pixels(IMAGE)).decode().image is IMAGE


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ImageTooLarge):
        inspect(Pixels(IMAGE), limits=Limits(max_mpx=0.001))
    with pytest.raises(ImageError, match="nothing to segment"):
        inspect(Pixels(IMAGE[:0]))
    for choice in (Choice(page=1), Choice(level=2), Choice(bands=(4, 3, 2))):
        with pytest.raises(NoSuchPart):
            inspect(Pixels(IMAGE), choice=choice)


def test_the_digest_is_of_the_shape_too() -> None:
    digest = Pixels(IMAGE).digest()
    assert digest == Pixels(IMAGE.copy()).digest()
    assert digest != Pixels(np.ascontiguousarray(IMAGE.reshape(50, 30, 3))).digest()
    assert len(Pixels(IMAGE)) == IMAGE.nbytes
