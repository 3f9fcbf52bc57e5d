"""Masks against a slow version with full SVDs and loops over cells; and that they are made once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.crf.dense import refine
from models.types import Array
from tests.training.features.test_store import OPTIONS, Patches, encoder
from tests.training.gaps import gap, halves
from tests.training.small_run import draw, small_run
from training.config.run import Run
from training.features import mask_proposals
from training.features.mask_proposals import NO_MASK, open_masks, principal_direction, proposals, refined
from training.features.store import Features, open_features, thumbnails


def things(seed: int = 0, side: int = 9) -> Array:
    """Features [6, side, side] of three things on a ground, each with a direction of its own, and noise."""
    rng = np.random.default_rng(seed)
    kinds = np.zeros((side, side), int)
    kinds[1:4, 1:5], kinds[5:, 2:4], kinds[2:7, 6:] = 1, 2, 3
    directions = np.linalg.qr(rng.normal(size=(6, 6)))[0][:4] * [[3], [5], [4], [6]]
    found: Array = (directions[kinds] + 0.3 * rng.normal(size=(side, side, 6))).transpose(2, 0, 1).astype(np.float32)
    return found


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def slow_proposals(features: Array, threshold: float, valid: Array) -> list[Array]:
    features, left, masks = features.astype(np.float64), valid.copy(), []
    while left.sum() > 0.05 * valid.sum():
        cells = [tuple(cell) for cell in np.argwhere(left)]
        points = np.array([features[:, y, x] for y, x in cells])
        direction = np.linalg.svd(points - points.mean(0), full_matrices=True)[2][0]
        direction = direction if direction @ points.mean(0) >= 0 else -direction
        seed = max(cells, key=lambda cell: cosine(features[:, *cell], direction))
        alike = {cell: cosine(features[:, *cell], features[:, *seed]) for cell in cells}
        mask = np.zeros(left.shape)
        for cell, value in alike.items():
            if value >= threshold * max(alike.values()):
                mask[cell], left[cell] = value, False
        masks.append(mask)
    return masks


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_masks_are_those_of_full_svds_and_loops(threshold, seed):
    features = things(seed)
    valid = np.ones((9, 9), bool) if seed else np.arange(9) > np.zeros((9, 1)) + 1
    found = proposals(features, threshold=threshold, valid=None if seed else valid)
    wanted = slow_proposals(features, threshold, valid)
    assert len(found) == len(wanted) > 1
    assert found == pytest.approx(np.array(wanted), abs=1e-5)


def test_each_thing_is_a_mask():
    features = things(5)
    found = proposals(features)
    assert len(found) == 4
    assert {int((mask > 0).sum()) for mask in found} == {12, 8, 15, 81 - 35}
    assert (found.max((1, 2)) == 1).all()


def test_no_two_masks_share_a_cell_and_almost_all_are_in_one():
    rng = np.random.default_rng(3)
    found = proposals(rng.normal(size=(5, 12, 12)))
    assert ((found > 0).sum(0) <= 1).all()
    assert (found > 0).any(0).mean() >= 0.95


def test_the_direction_of_the_most_variance_faces_the_mean():
    points = np.random.default_rng(4).normal(size=(50, 7)) * np.arange(1, 8) + 1
    found = principal_direction(points)
    assert abs(found @ np.linalg.svd(points - points.mean(0))[2][0]) == pytest.approx(1)
    assert found @ points.mean(0) > 0
    assert principal_direction(-points) == pytest.approx(-found)


@pytest.mark.parametrize("features", [np.zeros((4, 3, 3)), np.ones((4, 1, 2)), np.eye(4).reshape(4, 2, 2)])
def test_features_without_variance_end_as_well(features):
    assert 1 <= len(proposals(features)) <= features[0].size
    assert len(proposals(features, valid=np.zeros(features.shape[1:], bool))) == 0


def slow_refined(masks: Array, image: Array) -> Array:
    count, height, width = masks.shape
    smooth = np.zeros_like(masks)
    for m in range(count):
        for y in range(height):
            for x in range(width):
                around = [
                    masks[m, min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                ]
                smooth[m, y, x] = min(1.0, 10 * sorted(around)[4])
    background = np.clip(smooth[smooth != 0].mean() - smooth.sum(0), 0, 1)
    scores = torch.from_numpy(np.concatenate([background[None], smooth]))[None]
    likely = F.interpolate(scores, image.shape[:2], mode="bilinear", align_corners=False).softmax(1)[0]
    return refine(likely.numpy(), image).labels


def test_refined_masks_are_those_of_loops():
    rng = np.random.default_rng(0)
    masks = proposals(things(1))
    image = rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)
    found = refined(masks, image)
    assert (found == slow_refined(masks, image)).mean() > 0.995  # ties of rounding
    assert found.max() <= len(masks)
    assert set(np.unique(found)) - {NO_MASK}


def test_of_no_mask_nothing_is_refined():
    assert (refined(np.zeros((0, 2, 2), np.float32), np.zeros((8, 8, 3), np.uint8)) == NO_MASK).all()


def opened(run: Run) -> tuple[Features, Any]:
    features = open_features(encoder(Patches()), OPTIONS, run)
    return features, thumbnails(64, OPTIONS, run)


def test_a_killed_computation_goes_on_and_a_finished_one_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(mask_proposals, "_BLOCK", 2)
    images = draw(tmp_path / "images")
    alone = small_run(tmp_path / "whole", images=images)
    whole = open_masks(*opened(alone), alone)
    run = small_run(tmp_path / "killed", images=images)
    made, cut = [], mask_proposals._cut

    def dying(features: Features, pixels: Any, threshold: float, center: Array | None, crop: int) -> Array:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(crop)
        return cut(features, pixels, threshold, center, crop)

    monkeypatch.setattr(mask_proposals, "_cut", dying)
    with pytest.raises(KeyboardInterrupt):
        open_masks(*opened(run), run)
    assert made == [0, 1, 2, 3, 4]
    made.clear()
    found = open_masks(*opened(run), run)
    assert made == [4, 5, 6, 7]
    assert np.array_equal(found, whole)
    made.clear()
    assert np.array_equal(open_masks(*opened(run), run), whole)
    assert made == []
    for other in ({"threshold": 0.9}, {"center": np.ones(3, np.float32)}, {"center": np.zeros(3, np.float32)}):
        made.clear()
        with pytest.raises(KeyboardInterrupt):
            open_masks(*opened(run), run, **other)
        assert len(made) == 5


def test_what_holds_no_data_is_in_no_mask(tmp_path):
    run = small_run(tmp_path, images=halves(tmp_path / "images"))
    features, pixels = opened(run)
    found = open_masks(features, pixels, run)
    assert (found[:][:, :, :32] == NO_MASK).all()
    assert (found[:][:, :, 32:] != NO_MASK).mean() > 0.5
    assert isinstance(features.maps[:], np.ndarray)
    garbage = np.where(gap(4), 9, features.maps[:])
    seen = [mask_proposals._cut(replace(features, maps=m), pixels, 0.4, None, 0) for m in (features.maps, garbage)]
    assert np.array_equal(*seen)
    around = features.maps[:].mean((0, 2, 3))
    centered = replace(features, maps=features.maps[:] - around[:, None, None])
    seen = [mask_proposals._cut(one, pixels, 0.4, c, 0) for one, c in ((features, around), (centered, None))]
    assert np.array_equal(*seen)
