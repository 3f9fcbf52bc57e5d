"""TIFF: compressions, bands, pages, floats."""

import numpy as np
import pytest

from models.io.decode import decode
from models.io.samples import ImageError
from tests.models.io.drawn import PHOTO, tiff


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "jpeg"])
def test_compressed_tiff(compression: str) -> None:
    got = decode(tiff(PHOTO, compression=compression, photometric="rgb")).image
    assert got.shape == PHOTO.shape


def test_many_bands_and_many_pages() -> None:
    bands = np.random.default_rng(0).integers(0, 4000, (6, 24, 36)).astype(np.uint16)
    assert decode(tiff(bands, planarconfig="separate", photometric="minisblack")).image.shape == (24, 36, 3)
    pages = np.stack([np.full((8, 9), v, np.uint8) for v in (10, 20, 30)])
    data = tiff(pages, photometric="minisblack")
    assert [int(decode(data, page=n).image[0, 0, 0]) for n in range(3)] == [10, 20, 30]
    with pytest.raises(ImageError, match="3 page"):
        decode(data, page=3)


def test_floats_and_what_is_not_finite() -> None:
    values = np.random.default_rng(0).random((24, 36)).astype(np.float32)
    values[0, 0], values[1, 1] = np.nan, np.inf
    got = decode(tiff(values), depth="full").image
    assert got[0, 0, 0] == 0
    assert np.abs(got[5:, 5:, 0] - values[5:, 5:] * 255).max() <= 0.51
