"""A region's single ring encloses the region's pixels and no others."""

import numpy as np
import pytest

from models.bridges import bridged
from models.polygons import regions


def inside(ring: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """bool [H, W]: pixels whose centers a ray to the left leaves by crossing the ring an odd number of times."""
    crossed = np.zeros((shape[0], shape[1] + 1), np.int64)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        assert x0 == x1 or y0 == y1, "edges and bridges go along the pixels' edges"
        if x0 == x1:
            crossed[min(y0, y1) : max(y0, y1), x0] += 1
    return (np.cumsum(crossed, axis=1)[:, :-1] % 2).astype(bool)


def area(ring: np.ndarray) -> float:
    x, y = ring.astype(np.int64).T
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2


def maps() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    noise = [rng.integers(0, 2, (17, 23), np.uint8), (rng.random((40, 31)) < 0.2).astype(np.uint8)]
    nested = np.zeros((21, 21), np.uint8)
    for depth in range(1, 10):
        nested[depth:-depth, depth:-depth] = depth % 2
    row_of_holes = np.zeros((5, 41), np.uint8)
    row_of_holes[2, 1::2] = 1
    corners = np.zeros((9, 9), np.uint8)
    corners[np.arange(1, 8), np.arange(1, 8)] = 1
    return [*noise, nested, row_of_holes, corners, np.zeros((1, 1), np.uint8), np.zeros((3, 200), np.uint8)]


@pytest.mark.parametrize("labels", maps(), ids=["halves", "holes", "nested", "row", "corners", "one", "plain"])
def test_one_ring_is_the_region(labels: np.ndarray) -> None:
    covered = np.full(labels.shape, -1)
    for region in regions(labels):
        ring = bridged(region.rings)
        assert area(ring) == region.pixels
        mask = inside(ring, labels.shape)
        assert (covered[mask] == -1).all()
        covered[mask] = region.id
        assert (ring != np.roll(ring, 1, axis=0)).any(axis=1).all(), "no corner stands twice in a row"
    assert (covered == labels).all()


def test_a_hole_hangs_on_the_ring_to_its_left() -> None:
    labels = np.zeros((3, 7), np.uint8)
    labels[1, [2, 4]] = 1
    outline = next(region for region in regions(labels) if region.id == 0)
    ring = bridged(outline.rings).tolist()
    start = ring.index([0, 1])
    assert ring[start + 1] == [2, 1]
    assert ring.count([0, 1]) == ring.count([2, 1]) == 2
    assert ring.count([3, 1]) == 2, "the second hole hangs on the first"
