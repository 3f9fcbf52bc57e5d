"""A fast refinement along the edges of a photo: the guided filter, with the network's own grid as the coarse level.

Knows nothing of networks or requests: arrays in, labels out. No numba; a small C kernel does the last step where this
installation has it, numpy elsewhere.

Source: He, Sun, Tang, "Guided image filtering" (2013), and He, Sun, "Fast guided filter" (2015). Around each place of
the grid, each cluster's probability is explained as a linear function of the color. These functions are interpolated to
the pixels, and read at the pixels' own colors: where the color changes within a cell, the label may.
"""

from functools import lru_cache, partial

import numpy as np

from models import assign
from models.deadline import Until, check_time
from models.native import bindings
from models.native.bindings import Axis
from models.parallel import ThreadTeam
from models.preprocess import resize
from models.types import WHOLE, Array, Box

RADIUS = 4  # of the neighborhood in places of the grid
EPSILON = 100.0  # variance of the colors, in levels², below which a neighborhood counts as flat
STRIP = 1 << 19  # pixels between two looks at the clock: some 10 ms


def refine(
    probabilities: Array,
    pixels: Array,
    photo: Array,
    box: Box = WHOLE,
    *,
    radius: int = RADIUS,
    epsilon: float = EPSILON,
    threads: int = 1,
    deadline: Until = None,
) -> Array:
    """The best cluster of every pixel of a photo, along its edges.

    probabilities  float32 [K, h, w]   on the grid, K ≤ 255
    pixels         uint8 [H', W', 3]   what the grid shows, RGB, at any size
    photo          uint8 [H, W, 3]     the picture at the answer's size
    box            the part of the grid that the photo shows, as assign.labels has it
    threads        threads for this one photo; the answer does not depend on it
    deadline       time.monotonic() after which DeadlineExceeded is raised, by the kernel one strip later at the latest
    returns        uint8 [H, W]
    """
    check_time(deadline)
    models = linear_models(probabilities, resize(pixels, probabilities.shape[1:]), radius, epsilon)
    check_time(deadline)
    found = _compiled_labels(models, photo, box, threads, deadline)
    return plain_labels(models, photo, box) if found is None else found


def linear_models(probabilities: Array, colors: Array, radius: int, epsilon: float) -> Array:
    """float32 [4, K, h, w]: slopes by red, green, blue and the offset, each the mean of those around.

    probabilities  [K, h, w];  colors  [h, w, 3]
    """
    guide = np.moveaxis(np.asarray(colors, np.float32), 2, 0)
    mean = _boxed(np.concatenate([guide, guide[[0, 0, 0, 1, 1, 2]] * guide[[0, 1, 2, 1, 2, 2]]]), radius)
    center, products = mean[:3], mean[3:]
    rr, rg, rb, gg, gb, bb = (
        products[entry] - center[i] * center[j] + (epsilon if i == j else 0)
        for entry, (i, j) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    )
    cofactors = (
        gg * bb - gb * gb,
        rb * gb - rg * bb,
        rg * gb - rb * gg,
        rr * bb - rb * rb,
        rg * rb - rr * gb,
        rr * gg - rg * rg,
    )
    determinant = rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2]
    xx, xy, xz, yy, yz, zz = (cofactor / determinant for cofactor in cofactors)

    average = _boxed(probabilities, radius)
    red, green, blue = (
        _boxed(probabilities * color, radius) - average * own for color, own in zip(guide, center, strict=True)
    )
    slopes = np.stack(
        [xx * red + xy * green + xz * blue, xy * red + yy * green + yz * blue, xz * red + yz * green + zz * blue]
    )
    offset = average - sum(slope * own for slope, own in zip(slopes, center, strict=True))
    return _boxed(np.concatenate([slopes, offset[None]]), radius)


def _boxed(maps: Array, radius: int) -> Array:
    """The mean of maps [..., h, w] over squares of 2·radius + 1 places, as far as they lie inside.

    Two products with banded matrices: on a grid of a hundred places a side they are quicker than running sums.
    """
    height, width = maps.shape[-2:]
    return np.asarray(_means(height, radius) @ (np.asarray(maps, np.float32) @ _means(width, radius).T))


@lru_cache(maxsize=16)
def _means(n: int, radius: int) -> Array:
    """float32 [n, n]: each row the mean of the places at most radius away."""
    near = np.abs(np.arange(n) - np.arange(n)[:, None]) <= radius
    return np.asarray(near / near.sum(axis=1, keepdims=True), np.float32)


def plain_labels(models: Array, photo: Array, box: Box = WHOLE) -> Array:
    """The models read at every pixel's color, in numpy. What the compiled kernel is held against."""
    size = (photo.shape[0], photo.shape[1])
    labels = np.empty(size, np.uint8)
    for rows, strip in assign.upsampled(models.reshape(-1, *models.shape[2:]), size, box):
        red, green, blue, values = strip.reshape(4, -1, *strip.shape[1:])
        for slope, color in zip((red, green, blue), np.moveaxis(photo[rows], 2, 0), strict=True):
            values += slope * color
        labels[rows] = values.argmax(axis=0)
    return labels


def _compiled_labels(models: Array, photo: Array, box: Box, threads: int = 1, deadline: Until = None) -> Array | None:
    """The same from the kernel, strips of the photo on so many threads; None where there is none."""
    if not bindings.compiled():
        return None
    models = np.ascontiguousarray(models, np.float32)
    height, width = photo.shape[:2]
    down, across = assign.axes(models.shape[2:], (height, width), box)
    labels = np.empty((height, width), np.uint8)
    step = max(1, STRIP // width)

    def strip(start: int) -> bool:
        check_time(deadline)
        rows = slice(start, start + step)
        found = bindings.guided_labels(models, photo[rows], Axis(*(part[rows] for part in down)), across)
        if found is not None:
            labels[rows] = found
        return found is not None

    with ThreadTeam(threads) as team:
        done = team.run(*(partial(strip, start) for start in range(0, height, step)))
    return labels if all(done) else None
