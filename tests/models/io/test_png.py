"""Label maps survive the writer, compiled or not, as every reader sees them, and take no more bytes than Pillow's."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from imagecodecs import png_decode
from PIL import Image

from models import assign, palette
from models.io import png
from models.native import bindings

ways = pytest.mark.parametrize(
    "deflate",
    [
        pytest.param(
            bindings.deflate, marks=pytest.mark.skipif(not bindings.compiled(), reason="no compiled kernels here")
        ),
        png.plain_deflate,
    ],
)


def label_maps() -> Iterator[np.ndarray]:
    """Regions, noise, flat; every length a run can have; ids so unequal that Huffman's words pass 15 bits."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(27, 8, 8)).astype(np.float32)
    yield assign.labels(coarse, (320, 320))
    yield rng.integers(0, 255, (61, 97)).astype(np.uint8)
    yield np.full((320, 320), 7, np.uint8)
    yield np.array([[255]], np.uint8)
    yield np.zeros((3, 70000), np.uint8)
    for length in (*range(1, 12), *range(255, 270), *range(514, 526)):
        yield np.repeat(np.array([[3, 4]], np.uint8), length, axis=1)
    yield np.tile(assign.labels(coarse, (640, 640)), (3, 2))  # several blocks
    fibonacci = [1, 1]
    while len(fibonacci) < 22:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    skewed = rng.permutation(np.repeat(np.arange(22), fibonacci)).astype(np.uint8)
    yield skewed[None]


@ways
def test_the_stream_is_the_rows_less_those_above(deflate: png.Deflate) -> None:
    for ids in label_maps():
        stream = deflate(ids)
        assert stream is not None
        rows = np.frombuffer(zlib.decompress(stream), np.uint8).reshape(len(ids), -1)  # checks the sum, too
        assert (rows[:, 0] == 2).all()
        assert (np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8) == ids).all()


@pytest.mark.parametrize("k", [1, 11, 27, 256])
def test_readers_see_ids_and_colors(k: int) -> None:
    rng = np.random.default_rng(k)
    ids = rng.integers(0, k, (33, 47)).astype(np.uint8)
    colors = rng.integers(0, 256, (k, 3), dtype=np.uint8)
    data = png.encode_palette(ids[:, ::-1], colors)  # not contiguous
    with Image.open(io.BytesIO(data)) as opened:
        opened.verify()
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "P"
        assert (np.asarray(opened) == ids[:, ::-1]).all()
        assert (np.asarray(opened.convert("RGB")) == colors[ids[:, ::-1]]).all()
    assert (png_decode(data) == colors[ids[:, ::-1]]).all()  # libpng's reader


@pytest.mark.skipif(not bindings.compiled(), reason="no compiled kernels here")
def test_a_stream_that_may_not_fit_is_not_begun() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    room = np.empty(2048, np.uint8)
    library = bindings._library()
    assert library is not None
    room[1024:] = 77
    assert library.host_deflate(noise.ctypes.data, 300, 300, room.ctypes.data, 1024) == 0
    assert (room[1024:] == 77).all()


def test_a_label_map_is_no_larger_than_pillows_of_few_colors() -> None:
    coarse = np.random.default_rng(3).normal(size=(11, 9, 12)).astype(np.float32)
    ids = assign.labels(coarse, (360, 480))
    picture, buffer = Image.fromarray(ids), io.BytesIO()
    picture.putpalette(palette.distinct(11).tobytes())
    picture.save(buffer, "PNG")
    assert len(png.encode_palette(ids, palette.distinct(11))) <= len(buffer.getvalue())
