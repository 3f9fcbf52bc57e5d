"""Label maps survive the writer, as every reader sees them, and take no more bytes than Pillow's."""

import io
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from imagecodecs import png_decode
from PIL import Image

from models import assign, palette
from models.io import png


def label_maps() -> Iterator[np.ndarray]:
    """Regions, noise, flat; not contiguous; one pixel; rows longer than a strip; several strips."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(27, 8, 8)).astype(np.float32)
    yield assign.labels(coarse, (320, 320))
    yield rng.integers(0, 255, (61, 97)).astype(np.uint8)
    yield np.full((320, 320), 7, np.uint8)
    yield np.array([[255]], np.uint8)
    yield np.zeros((3, 70000), np.uint8)
    yield np.zeros((2, png._STRIP + 5), np.uint8)
    yield np.tile(assign.labels(coarse, (640, 640)), (3, 2))  # several strips
    yield rng.integers(0, 9, (40, 50)).astype(np.uint8)[:, ::-2]


def test_every_row_is_filtered_by_the_one_above() -> None:
    for ids in label_maps():
        data = png.encode_palette(ids, palette.distinct(256))
        start = data.index(b"IDAT") + 4
        stream = data[start : start + int.from_bytes(data[start - 8 : start - 4])]
        rows = np.frombuffer(zlib.decompress(stream), np.uint8).reshape(len(ids), -1)  # checks the sum, too
        assert (rows[:, 0] == 2).all()
        assert (np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8) == ids).all()


@pytest.mark.parametrize("k", [1, 11, 27, 256])
def test_readers_see_ids_and_colors(k: int) -> None:
    rng = np.random.default_rng(k)
    ids = rng.integers(0, k, (33, 47)).astype(np.uint8)
    colors = rng.integers(0, 256, (k, 3), dtype=np.uint8)
    data = png.encode_palette(ids[:, ::-1], colors)  # not contiguous
    assert data[24:26] == b"\x08\x03"  # 8 bits a pixel whatever k is, colors by palette
    with Image.open(io.BytesIO(data)) as opened:
        opened.verify()
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "P"
        assert (np.asarray(opened) == ids[:, ::-1]).all()
        assert (np.asarray(opened.convert("RGB")) == colors[ids[:, ::-1]]).all()
    assert (png_decode(data) == colors[ids[:, ::-1]]).all()  # libpng's reader


def test_colors_may_be_transparent() -> None:
    rng = np.random.default_rng(5)
    ids, colors = rng.integers(0, 5, (20, 30)).astype(np.uint8), rng.integers(0, 256, (5, 3), dtype=np.uint8)
    for alpha in ([255, 0, 255, 255, 255], [0, 0, 255, 77, 255], [0] * 5):
        rgba = np.column_stack([colors, np.array(alpha, np.uint8)])
        data = png.encode_palette(ids, colors, rgba[:, 3])
        with Image.open(io.BytesIO(data)) as opened:
            assert (np.asarray(opened) == ids).all()
            assert (np.asarray(opened.convert("RGBA")) == rgba[ids]).all()
        assert (png_decode(data) == rgba[ids]).all()


def test_a_label_map_is_no_larger_than_pillows_of_few_colors() -> None:
    coarse = np.random.default_rng(3).normal(size=(11, 9, 12)).astype(np.float32)
    ids = assign.labels(coarse, (360, 480))
    picture, buffer = Image.fromarray(ids), io.BytesIO()
    picture.putpalette(palette.distinct(11).tobytes())
    picture.save(buffer, "PNG")
    assert len(png.encode_palette(ids, palette.distinct(11))) <= len(buffer.getvalue())


def test_a_mask_is_a_gray_png() -> None:
    mask = np.where(np.random.default_rng(0).random((31, 17)) < 0.3, 255, 0).astype(np.uint8)
    picture = Image.open(io.BytesIO(png.encode_gray(mask)))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), mask)
