"""Masks: what is not zero is marked, whatever kind of PNG says so."""

import io

import numpy as np
import pytest
from PIL import Image

from models.io import mask_file
from models.io.samples import ImageError, Limits

MARKED = np.zeros((4, 6), bool)
MARKED[1:3, 2:5] = True


def png(image: Image.Image, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **how)
    return file.getvalue()


def kinds() -> dict[str, Image.Image]:
    gray = Image.fromarray(MARKED.astype(np.uint8))
    indexed = gray.copy()
    indexed.putpalette([200, 10, 10, 0, 0, 0] * 4)  # index 0 is a color, index 1 black
    alpha = np.dstack([np.full((*MARKED.shape, 3), 255, np.uint8), MARKED.astype(np.uint8) * 255])
    return {
        "L": gray,
        "1": Image.fromarray(MARKED),
        "P": indexed,
        "RGB": Image.merge("RGB", [Image.new("L", gray.size), Image.new("L", gray.size), gray]),
        "RGBA": Image.fromarray(alpha),
        "I;16": Image.fromarray(MARKED.astype(np.uint16) * 256),
    }


@pytest.mark.parametrize("mode", kinds())
def test_what_is_not_zero_is_marked(mode: str) -> None:
    assert np.array_equal(mask_file.decode(png(kinds()[mode]), (4, 6), Limits()), MARKED)


def test_what_is_no_mask_of_the_size_is_refused() -> None:
    good = png(kinds()["L"])
    for data, size, says in (
        (good, (6, 4), "6×4 pixels and the image 4×6"),
        (b"GIF89a", (4, 6), "no PNG"),
        (good[: len(good) // 2], (4, 6), "."),
        (good.replace(b"IDAT", b"IDAX"), (4, 6), "."),
    ):
        with pytest.raises(ImageError, match=says):
            mask_file.decode(data, size, Limits())
