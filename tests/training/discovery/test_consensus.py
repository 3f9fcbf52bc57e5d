"""training/discovery/consensus.py: matching clusterings, and averaging them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import TesseraError
from training.data.regions import RegionCache
from training.discovery.consensus import (
    agreement,
    cluster_regions,
    consensus,
    match,
    place,
)
from training.features.region_codes import RegionCodes

TRUTH = torch.arange(4).repeat_interleave(6).reshape(1, 4, 6).repeat(3, 1, 1)


def renamed(labels: Tensor, seed: int) -> Tensor:
    return torch.randperm(4, generator=torch.Generator().manual_seed(seed))[labels]


def test_the_same_clustering_under_other_names_agrees_fully() -> None:
    assert agreement(TRUTH, renamed(TRUTH, 1), 4) == 1.0
    found = match(renamed(TRUTH, 1), torch.nn.functional.one_hot(TRUTH, 4).movedim(-1, 1).float())
    assert torch.equal(found[renamed(TRUTH, 1)], TRUTH)


def test_consensus_outvotes_one_bad_run() -> None:
    bad = TRUTH.clone()
    bad[:, 0, :3] = 1
    made = consensus([renamed(TRUTH, 1), renamed(bad, 2), renamed(TRUTH, 3)], 4)
    assert agreement(made.soft.argmax(1), TRUTH, 4) == 1.0
    torch.testing.assert_close(made.soft.sum(1), torch.ones(3, 4, 6))
    assert made.soft.amax(1)[:, 0, 0].tolist() == pytest.approx([2 / 3] * 3)
    # The bad run differs from each of the two others in 3 of 24 cells.
    assert made.agreement == pytest.approx((1 + 2 * (1 - 3 / 24)) / 3)


def test_one_run_is_its_own_consensus() -> None:
    made = consensus([TRUTH], 4)
    assert made.agreement == 1.0
    assert torch.equal(made.soft.argmax(1), TRUTH)


def test_what_cannot_be_averaged_says_why() -> None:
    with pytest.raises(TesseraError, match="at least one"):
        consensus([], 4)
    with pytest.raises(TesseraError, match="one size"):
        consensus([TRUTH, TRUTH[:, :2]], 4)


def test_place_folds_left_onto_right() -> None:
    codes = RegionCodes(
        codes=torch.randn(1, 5).repeat(2, 1),
        center=torch.tensor([[0.5, 0.1], [0.5, 0.9]]),
        image=torch.zeros(2, dtype=torch.int64),
        scale=torch.zeros(2, dtype=torch.int64),
        region=torch.arange(2),
    )
    left, right = place(codes, 2.0)
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(left[:5].norm(), torch.tensor(1.0))


def test_regions_weigh_the_same_whatever_their_size() -> None:
    n = 6
    ids = np.zeros((n, 1, 8, 8), np.uint16)
    ids[:, :, 7, 7] = 1
    cache = RegionCache((), np.zeros((n, 8, 8, 3), np.uint8), ids, np.full((n, 1), 2))
    one = torch.arange(2).repeat(n)
    codes = RegionCodes(
        codes=nn.functional.one_hot(one, 3).float(),
        center=torch.full((2 * n, 2), 0.5),
        image=torch.arange(n).repeat_interleave(2),
        scale=torch.zeros(2 * n, dtype=torch.int64),
        region=one,
    )
    found = cluster_regions(codes, cache, 2, (8, 8), position=0.0, seed=0)
    assert found.shape == (n, 8, 8)
    assert torch.equal(found == found[0, 7, 7], torch.from_numpy(ids[:, 0] == 1))
