"""Brush strokes are read back by a reader written from the format alone; without a compiler they are the same."""

import itertools
import time

import numpy as np
import pytest

from models import brush
from models.native import bindings

SHAPES = [(1, 1), (1, 32_000), (7, 5), (64, 64), (120, 100)]


def read_stroke(data: bytes) -> np.ndarray:
    """The values uint8 [4 H W] of a stroke: bit by bit, as its format says."""
    text = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def take(bits: int) -> int:
        nonlocal at
        at += bits
        return int(text[at - bits : at], 2)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    assert (word, sizes) == (8, [3, 4, 8, 16])
    values: list[int] = []
    while len(values) < count:
        is_run = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(8)] * length if is_run else [take(8) for _ in range(length)]
    assert 1 <= len(text) - at <= 8, "padded to a whole byte, by one at least"
    assert not int(text[at:], 2)
    return np.array(values, np.uint8)


def maps(shape: tuple[int, int]) -> list[np.ndarray]:
    """Noise, large regions, one id alone, all of 254 ids."""
    rng = np.random.default_rng(shape[0])
    blocks = rng.integers(0, 5, (shape[0] // 8 + 1, shape[1] // 8 + 1), np.uint8)
    smooth = blocks.repeat(8, axis=0).repeat(8, axis=1)[: shape[0], : shape[1]]
    return [
        rng.integers(0, 3, shape, np.uint8),
        smooth,
        np.full(shape, 7, np.uint8),
        rng.integers(0, 254, shape, np.uint8),
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_strokes_are_the_masks_255_in_four_channels(shape: tuple[int, int]) -> None:
    for labels in maps(shape)[:3]:
        found = brush.strokes(labels)
        assert sorted(found) == np.unique(labels).tolist()
        for id, stroke in itertools.islice(found.items(), 3):
            want = np.where(labels == id, 255, 0).astype(np.uint8).ravel().repeat(4)
            assert (read_stroke(stroke.tobytes()) == want).all()


@pytest.mark.skipif(not bindings.compiled(), reason="no compiler was there when this was installed")
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_writes_what_numpy_writes(shape: tuple[int, int]) -> None:
    for labels in maps(shape):
        found = brush.strokes(labels)
        assert all((stroke == brush.plain_stroke(labels == id)).all() for id, stroke in found.items())


@pytest.mark.parametrize("pixels", [2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 40000])
def test_runs_at_the_edges_of_the_lengths_sizes(pixels: int) -> None:
    labels = np.zeros((1, pixels + 1), np.uint8)
    labels[0, -1] = 1
    for id, stroke in brush.strokes(labels).items():
        assert (read_stroke(stroke.tobytes()).reshape(-1, 4) == np.where(labels == id, 255, 0).reshape(-1, 1)).all()
        assert (stroke == brush.plain_stroke(labels == id)).all()


def test_a_known_stroke_to_the_bit() -> None:
    """Two pixels, the second set: 8 values; four zeros, four of 255."""
    want = "0000000000000000000000000000100000111001000110111111110001100000000100011111111110000000"
    stroke = brush.strokes(np.array([[0, 1]], np.uint8))[1]
    assert "".join(f"{byte:08b}" for byte in stroke) == want


@pytest.mark.timing
@pytest.mark.skipif(not bindings.compiled(), reason="no compiler was there when this was installed")
def test_twelve_clusters_of_four_megapixels_take_no_time() -> None:
    """label_studio_sdk's own encoder takes 0.55 s where it was measured: a tenth of that is the most."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, (32, 32), np.uint8).repeat(64, axis=0).repeat(64, axis=1)
    labels = np.where(rng.random(labels.shape) < 0.005, np.uint8(3), labels)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert len(brush.strokes(labels)) == 12
        took.append(time.perf_counter() - began)
    assert min(took) < 0.055


def test_an_empty_map_is_refused() -> None:
    with pytest.raises(ValueError, match="0 pixels"):
        brush.strokes(np.zeros((0, 4), np.uint8))
