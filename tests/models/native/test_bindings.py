"""The compiled kernels give what numpy gives; and without them everything works all the same."""

from collections.abc import Iterator

import numpy as np
import pytest

from models import assign, palette
from models.native import bindings

SIZES = [(1, 1), (1, 40), (47, 71), (96, 96), (15, 130)]
BOXES = [assign.WHOLE, (0.25, 0.0, 0.5, 1.0), (0.1, 0.3, 0.57, 0.41)]

needs_kernels = pytest.mark.skipif(not bindings.compiled(), reason="no compiler was there when this was installed")


def score_maps(k: int, h: int, w: int) -> Iterator[np.ndarray]:
    """Noise; smooth fields as of a trained network; near ties; exact ties; huge, tiny and no values."""
    rng = np.random.default_rng(k * h + w)
    noise = rng.normal(size=(k, h, w)).astype(np.float32)
    yield noise
    coarse = rng.normal(size=(k, 3, 3)).astype(np.float32)
    smooth = np.concatenate([strip for _, strip in assign.upsampled(coarse, (h, w))], axis=1)
    yield smooth + np.float32(0.02) * noise
    yield 1 + np.float32(1e-7) * rng.integers(-2, 3, (k, h, w)).astype(np.float32)
    yield rng.integers(0, 3, (k, h, w)).astype(np.float32)
    yield noise * np.float32(1e30)
    yield noise * np.float32(1e-30)
    yield np.zeros((k, h, w), np.float32)


@needs_kernels
@pytest.mark.parametrize(("k", "h", "w"), [(1, 2, 2), (2, 1, 1), (7, 5, 9), (27, 20, 20), (255, 4, 3), (11, 30, 40)])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_labels_are_numpys_on_every_pixel(k: int, h: int, w: int, interpolation: assign.Interpolation) -> None:
    different = pixels = 0
    for scores in score_maps(k, h, w):
        for size in SIZES:
            for box in BOXES:
                got = assign.labels(scores, size, box, interpolation=interpolation)
                want = assign.plain_labels(scores, size, box, interpolation)
                different, pixels = different + int((got != want).sum()), pixels + got.size
    assert pixels > 200_000
    assert different == 0


@needs_kernels
@pytest.mark.parametrize(("k", "h", "w"), [(1, 2, 2), (2, 1, 1), (7, 5, 9), (27, 20, 20), (255, 4, 3)])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("assignment", ["cosine", "dot"])
def test_margins_and_the_two_clusters_they_are_between_are_numpys(
    k: int, h: int, w: int, interpolation: assign.Interpolation, assignment: assign.Assignment
) -> None:
    rng = np.random.default_rng(k)
    code, centroids = rng.normal(size=(16, h, w)).astype(np.float32), rng.normal(size=(k, 16)).astype(np.float32)
    code[:, -1, -1] = 0
    scores = np.tensordot(centroids / np.linalg.norm(centroids, axis=1, keepdims=True), code, 1)
    for maps in (scores, np.round(scores), np.zeros_like(scores)):
        for size in [(1, 1), (47, 71), (h, w)]:
            for box in BOXES[::2]:
                how = {"assignment": assignment, "box": box, "interpolation": interpolation}
                want = assign.plain_ranked(maps, code, size, **how)  # type: ignore[arg-type]
                got = assign.ranked(maps, code, size, **how)  # type: ignore[arg-type]
                for ours, numpys in zip(got, want, strict=True):
                    assert (ours == numpys).all()
                assert (assign.margin(maps, code, size, **how) == want.margin).all()  # type: ignore[arg-type]


@needs_kernels
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e30])
def test_margins_of_what_is_no_number_are_left_to_numpy(value: float) -> None:
    scores, products = np.ones((2, 3, 4, 4), np.float32)
    at = assign.axes((4, 4), (4, 4))
    assert bindings.margin(scores, products[:1], *at) is not None
    products[0, 1, 2] = value
    assert bindings.margin(scores, products[:1], *at) is None
    assert bindings.ranked(products, None, *at) is None


@needs_kernels
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_scores_that_are_no_numbers_are_left_to_numpy(value: float) -> None:
    scores = np.random.default_rng(0).normal(size=(5, 4, 4)).astype(np.float32)
    scores[3, 2, 1] = value
    assert bindings.labels(scores, *assign.axes((4, 4), (9, 9))) is None
    with np.errstate(all="ignore"):
        assert (assign.labels(scores, (9, 9)) == assign.plain_labels(scores, (9, 9))).all()


def colored(shape: tuple[int, int], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(k)
    blocks = rng.integers(0, k, shape).astype(np.uint8)
    ragged = np.where(rng.random(shape) < 0.7, blocks[:, :1], blocks)
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8), ragged, rng.integers(0, 256, (k, 3), dtype=np.uint8)


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 16), (40, 37), (64, 128)])
@pytest.mark.parametrize("k", [1, 11, 255])
def test_colors_are_numpys_on_every_pixel(shape: tuple[int, int], k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels, colors = colored(shape, k)
    cases = [(alpha, only) for alpha in (0.0, 0.31, 0.5, 1.0) for only in (None, [0], [])]
    compiled = [palette.overlay(image, labels, colors, alpha, only) for alpha, only in cases]
    with monkeypatch.context() as without:
        without.setattr(bindings, "_library", lambda: None)
        for (alpha, only), got in zip(cases, compiled, strict=True):
            assert (got == palette.overlay(image, labels, colors, alpha, only)).all()


def test_an_id_without_a_color_is_refused_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels, colors = colored((4, 4), 3)
    labels[2, 2] = 200
    for library in (bindings._library, lambda: None):
        monkeypatch.setattr(bindings, "_library", library)
        with pytest.raises(IndexError):
            palette.overlay(image, labels, colors)


def test_without_a_compiler_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "_library", lambda: None)
    assert not bindings.compiled()
    scores = np.random.default_rng(0).normal(size=(5, 4, 4)).astype(np.float32)
    assert (assign.labels(scores, (30, 20)) == assign.plain_labels(scores, (30, 20))).all()
    down, across = assign.axes((4, 4), (30, 20))
    assert bindings.guided_labels(np.zeros((4, 5, 4, 4)), np.zeros((30, 20, 3)), down, across) is None


def test_a_library_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "_VERSION", -1)
    assert bindings._library.__wrapped__() is None


@needs_kernels
@pytest.mark.parametrize("size", [0, 1, 31, 4096, 4097, 2**17 + 5])
def test_one_value_that_is_no_number_is_found_wherever_it_is(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    values[: size // 2] = np.finfo(np.float32).max
    assert bindings.finite(values) is True
    for at in {0, size // 3, size - 1} if size else ():
        for wrong in (np.nan, np.inf, -np.inf, -np.nan):
            changed = values.copy()
            changed[at] = wrong
            assert bindings.finite(changed) is False


def test_what_the_kernel_cannot_look_through_is_numpys() -> None:
    values = np.ones((8, 8), np.float32)
    for other in (values.astype(np.float64), values[:, ::2]):
        assert bindings.finite(other) is None
