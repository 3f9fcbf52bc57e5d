"""Photos and probabilities drawn for the CRF's tests, and how near an answer must be to the CPU's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.crf import dense
from models.crf.cuda import Device, DeviceArray, Refiner
from models.crf.cuda.device import Program
from models.crf.cuda.solver import FULL
from models.crf.params import PUBLISHED, CRFParams
from models.manifest import CodeSpec
from models.preprocess import Fit
from models.types import Array

PLAIN = CodeSpec(dim=1, stride=1, assignment="dot", temperature=1.0)  # scores are logits, at the photo's size


def picture(height: int, width: int, seed: int = 0) -> Array:
    """uint8 [H, W, 3]: a disk on a ground, a slope of brightness, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    disk = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2
    color = np.array([[200, 60, 40], [40, 90, 180]])[disk.astype(int)] + (x * 30 // width)[:, :, None]
    return (color + rng.integers(-2, 3, (height, width, 3))).astype(np.uint8)


def noise(height: int, width: int, seed: int = 0) -> Array:
    """Six lattice vertices for nearly every pixel: the most there can be."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def maps(k: int, height: int, width: int, seed: int = 0, spread: float = 1.0) -> Array:
    """Scores float32 [K, h, w], smooth over about eight pixels."""
    rng = np.random.default_rng(seed)
    grid = rng.standard_normal((k, height // 8 + 2, width // 8 + 2)) * spread
    for axis, size in ((1, height), (2, width)):
        at = np.linspace(0, grid.shape[axis] - 1.001, size)
        low, weight = at.astype(int), at - at.astype(int)
        weight = weight[:, None] if axis == 1 else weight
        grid = grid.take(low, axis) * (1 - weight) + grid.take(low + 1, axis) * weight
    return grid.astype(np.float32)


def softmax(scores: Array) -> Array:
    """float64 [K, H, W]."""
    grown = np.exp(scores.astype(np.float64))
    return grown / grown.sum(axis=0)


class Lattice:
    """The permutohedral lattice of points float32 [N, d], in numpy: places in float32, all else in float64."""

    def __init__(self, points: Array) -> None:
        d = points.shape[1]
        scales = [np.float32(np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1) * (i + 2))) for i in range(d)]
        place, above = np.zeros((d + 1, len(points)), np.float32), np.zeros(len(points), np.float32)
        for i in range(d, 0, -1):
            scaled = points[:, i - 1] * scales[i - 1]
            place[i] = above - np.float32(i) * scaled
            above = above + scaled
        place[0] = above
        whole = np.rint(place * np.float32(1 / (d + 1))).astype(np.int64)
        near = whole * (d + 1)
        apart = place - near.astype(np.float32)
        rank = np.zeros_like(near)
        for i in range(d + 1):
            for j in range(i + 1, d + 1):
                less = apart[i] < apart[j]
                rank[i] += less
                rank[j] += ~less
        rank += whole.sum(axis=0)
        turn = np.where(rank < 0, d + 1, np.where(rank > d, -d - 1, 0))
        rank, near = rank + turn, near + turn
        apart = (place - near.astype(np.float32)).astype(np.float64) / (d + 1)
        bary = np.zeros((d + 2, len(points)))
        for i in range(d + 1):
            np.add.at(bary, (d - rank[i], np.arange(len(points))), apart[i])
            np.subtract.at(bary, (d + 1 - rank[i], np.arange(len(points))), apart[i])
        bary[0] += 1 + bary[d + 1]

        shift = 12 * np.arange(d)
        corners = np.stack([near + r - (d + 1) * (rank > d - r) for r in range(d + 1)])[:, :d]
        keys, vertex = np.unique(((corners + 2048) << shift[:, None]).sum(axis=1), return_inverse=True)
        self.vertex, self.weight, self.neighbors = vertex.reshape(d + 1, -1), bary[: d + 1], []
        for axis in range(d + 1):
            step = sum(1 << int(s) for s in shift) - ((d + 1) << 12 * axis if axis < d else 0)
            sides = []
            for wanted in (keys - step, keys + step):
                found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                sides.append(np.where(keys[found] == wanted, found, len(keys)))
            self.neighbors.append(sides)
        self.norm = np.ones((len(points), 1))
        self.norm = 1 / np.sqrt(self(self.norm) + 1e-20)

    def __call__(self, rows: Array) -> Array:
        """Rows [N, C], filtered: symmetric-normalized once `norm` is known."""
        values = np.zeros((int(self.vertex.max()) + 2, rows.shape[1]))  # the last stays zero
        for vertex, weight in zip(self.vertex, self.weight, strict=True):
            np.add.at(values, vertex, weight[:, None] * rows * self.norm)
        for before, after in self.neighbors:
            values[:-1] += (values[before] + values[after]) / 2
        return sum(w[:, None] * values[v] for v, w in zip(self.vertex, self.weight, strict=True)) * self.norm


def oracle(scores: Array, image: Array, params: CRFParams = PUBLISHED) -> Array:
    """Marginals float64 [K, H, W] of models.crf.dense.refine, by the book: both kernels as lattices."""
    k, height, width = scores.shape
    ys, xs = np.divmod(np.arange(height * width), width)
    at = np.stack([xs, ys], axis=1).astype(np.float32)
    colors = image.reshape(-1, 3)[:, ::-1] / np.float32(params.bilateral_srgb)
    gaussian = Lattice(at / np.float32(params.gaussian_sxy))
    bilateral = Lattice(np.concatenate([at / np.float32(params.bilateral_sxy), colors], axis=1))
    unary = np.log(np.maximum(softmax(scores).reshape(k, -1).T, 1e-5))
    logits = unary
    for turn in range(params.iterations + 1):
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        q: Array = grown / grown.sum(axis=1, keepdims=True)
        if turn < params.iterations:
            logits = unary + params.gaussian_compat * gaussian(q) + params.bilateral_compat * bilateral(q)
    return q.T.reshape(scores.shape)


class Tap:
    """A device that notes the marginals of every photo: the rows from which its labels are read."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._noted: dict[int, Array] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def program(self, blocks: int) -> Program:
        return _Tapped(self, self._device.program(blocks))

    @property
    def marginals(self) -> list[Array]:
        """float64 [K, H, W] each, in the order of the batch, which is that of the labels' memory."""
        return [self._noted[place] for place in sorted(self._noted)]

    def note(self, images: DeviceArray, grids: DeviceArray, rows: DeviceArray, labels: int) -> None:
        flat = self._device.download(rows)
        for image, grid in zip(self._device.download(images), self._device.download(grids), strict=True):
            height, width, pixel = int(image["height"]), int(image["width"]), int(image["pixel"])
            own = flat[pixel : pixel + height * width, :labels] / FULL
            self._noted[int(grid["labels"])] = own.T.reshape(labels, height, width)


class _Tapped:
    def __init__(self, tap: Tap, program: Program) -> None:
        self._tap, self._program = tap, program

    def prepared(self, kernel: str, grid: tuple[int, int], threads: int, *args: Any) -> Callable[[], object]:
        launch = self._program.prepared(kernel, grid, threads, *args)
        if kernel != "label_rows":
            return launch

        def launch_and_note() -> None:
            launch()
            self._tap.note(*args)

        return launch_and_note


def refined(
    device: Device, cases: Sequence[tuple[Array, Array]], params: CRFParams = PUBLISHED, **keep: Any
) -> tuple[list[Array], list[Array]]:
    """Labels and marginals of a batch of scores [K, H, W] and photos [H, W, 3], on the host."""
    tap = Tap(device)
    scores, photos = zip(*cases, strict=True)
    fitted = [Fit(photo, photo.shape[:2]) for photo in photos]
    answers = Refiner(tap, **keep).refine(scores, None, fitted, PLAIN, params)
    return [device.download(labels) for labels in answers], tap.marginals


def assert_near(
    labels: Sequence[Array],
    marginals: Sequence[Array],
    cases: Sequence[tuple[Array, Array]],
    params: CRFParams = PUBLISHED,
) -> None:
    """Marginals as near to the oracle's as float32's; and other labels at most where two are as good as equal."""
    for ours, q, (scores, image) in zip(labels, marginals, cases, strict=True):
        exact = oracle(scores, image, params)
        expected = exact.argmax(axis=0)
        assert np.abs(q - exact).mean() < 5e-8
        other = ours != expected
        y, x = np.nonzero(other)
        assert (exact[expected[other], y, x] - exact[ours[other], y, x] < 1e-6).all()
        by_cpu = dense.refine(softmax(scores).astype(np.float32), image, params).labels
        assert (ours == by_cpu).mean() > 0.998  # a pixel or two of these small ones
