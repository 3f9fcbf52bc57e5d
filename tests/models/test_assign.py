"""The short way (upsample K scores) against the papers' long way (upsample the code, normalize, compare)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import assign


def drawn(k: int = 7, d: int = 12, h: int = 6, w: int = 9, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    code = rng.normal(size=(d, h, w)).astype(np.float32) * rng.uniform(0.2, 5, (1, h, w)).astype(np.float32)
    centroids = rng.normal(size=(k, d)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return code, centroids, np.tensordot(centroids, code, axes=1)


def long_way(code: np.ndarray, centroids: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Cosines [K, H, W] in the order the papers compute them."""
    full = F.interpolate(torch.tensor(code)[None], size, mode="bilinear", align_corners=False)
    return torch.einsum("kd,bdhw->bkhw", torch.tensor(centroids), F.normalize(full, dim=1))[0]


@pytest.mark.parametrize("size", [(48, 72), (47, 71), (6, 9), (5, 3), (1, 1), (300, 2)])
def test_labels_equal_the_papers_order(size: tuple[int, int]) -> None:
    code, centroids, scores = drawn()
    cosines = long_way(code, centroids, size)
    top = cosines.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-5).numpy()
    got = assign.labels(scores, size)
    assert got.dtype == np.uint8
    assert got.shape == size
    assert (got == cosines.argmax(0).numpy())[clear].all()
    assert clear.mean() > 0.99


@pytest.mark.parametrize("size", [(48, 72), (47, 71), (3, 2)])
@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_probabilities_and_margin_equal_the_papers_order(size: tuple[int, int], temperature: float) -> None:
    code, centroids, scores = drawn(seed=1)
    cosines = long_way(code, centroids, size)
    got = assign.probabilities(scores, code, size, temperature=temperature)
    assert np.abs(got - torch.softmax(temperature * cosines, 0).numpy()).max() < 1e-5
    assert np.abs(got.sum(0) - 1).max() < 1e-5
    top = cosines.topk(2, dim=0).values
    assert np.abs(assign.margin(scores, code, size) - (top[0] - top[1]).numpy()).max() < 1e-5


def test_nearest_is_one_answer_a_patch() -> None:
    code, _, scores = drawn()
    patches = scores.argmax(0).astype(np.uint8)
    got = assign.labels(scores, (60, 90), interpolation="nearest")
    assert (got == patches.repeat(10, 0).repeat(10, 1)).all()
    margin = assign.margin(scores, code, (60, 90), interpolation="nearest")
    assert (margin == assign.margin(scores, code, (6, 9)).repeat(10, 0).repeat(10, 1)).all()
    sure = assign.probabilities(scores, code, (6, 9), temperature=3, interpolation="nearest")
    assert np.allclose(sure, assign.probabilities(scores, code, (6, 9), temperature=3), atol=1e-6)


@pytest.mark.parametrize("grid", [(6, 9), (60, 80), (1, 7)])
def test_on_the_grid_itself_nothing_is_interpolated(grid: tuple[int, int]) -> None:
    code, _, scores = drawn(h=grid[0], w=grid[1])
    assert (np.concatenate([strip for _, strip in assign.upsampled(scores, grid)], axis=1) == scores).all()
    assert np.allclose(assign.lengths(code, grid), np.linalg.norm(code, axis=0), rtol=1e-6)


def test_lengths_are_those_of_the_interpolated_code() -> None:
    code, _, _ = drawn()
    full = F.interpolate(torch.tensor(code)[None], (31, 44), mode="bilinear", align_corners=False)[0]
    assert np.allclose(assign.lengths(code, (31, 44)), full.norm(dim=0).numpy(), atol=1e-4)


def test_dot_needs_no_code_and_cosine_does() -> None:
    _, _, scores = drawn()
    plain = assign.probabilities(scores, None, (6, 9), temperature=1.0, assignment="dot")
    assert np.allclose(plain, torch.softmax(torch.tensor(scores), 0).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="code"):
        assign.probabilities(scores, None, (6, 9), temperature=1.0)


def test_strips_do_not_show() -> None:
    _, _, scores = drawn()
    whole = assign.labels(scores, (200, 150))
    before = assign._STRIP
    try:
        assign._STRIP = 150 * 7 * 3  # three rows at a time
        assert (assign.labels(scores, (200, 150)) == whole).all()
    finally:
        assign._STRIP = before


def test_a_box_is_the_crop_of_the_whole() -> None:
    _, _, scores = drawn(h=8, w=8)
    whole = assign.labels(scores, (64, 64))
    assert (assign.labels(scores, (32, 48), (0.25, 0.125, 0.5, 0.75)) == whole[16:48, 8:56]).all()


def test_the_lower_id_wins_a_tie() -> None:
    scores = np.ones((5, 3, 3), np.float32)
    scores[0] = 0
    assert (assign.labels(scores, (9, 9)) == 1).all()
