"""Majorities and the weighted cross-entropy, against loops over pixels."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from training.data.label_maps import IGNORED
from training.losses.mask_votes import confidence_weighted, majority

K = 5


def test_every_mask_takes_the_class_of_most_of_its_pixels():
    rng = np.random.default_rng(0)
    labels, masks = rng.integers(0, K, (3, 7, 9)), rng.integers(0, 6, (3, 7, 9))
    masks[1] *= 51  # up to 255
    found = majority(torch.from_numpy(labels), torch.from_numpy(masks), K).numpy()
    for image in range(3):
        votes: dict[int, Counter[int]] = {}
        for label, mask in zip(labels[image].flat, masks[image].flat, strict=True):
            votes.setdefault(int(mask), Counter())[int(label)] += 1
        for (row, column), mask in np.ndenumerate(masks[image]):
            count = votes[int(mask)]
            wanted = min(label for label in count if count[label] == max(count.values())) if mask else IGNORED
            assert found[image, row, column] == wanted


def slow_loss(logits: np.ndarray, labels: np.ndarray, gamma: float, valid: np.ndarray) -> float:
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pixels = [place for place, inside in np.ndenumerate(valid) if inside]
    mean = [sum(shares[b, k, y, x] for b, y, x in pixels) / len(pixels) for k in range(logits.shape[1])]
    total = 0.0
    for b, y, x in pixels:
        if (label := labels[b, y, x]) != IGNORED:
            total -= (1 - mean[label]) ** gamma * math.log(shares[b, label, y, x])
    return total / len(pixels)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("gaps", [False, True])
def test_a_class_that_is_sure_of_itself_counts_less(gamma, gaps):
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(2, K, 4, 6)), rng.integers(0, K, (2, 4, 6))
    labels[0, 1] = IGNORED
    valid = rng.random((2, 4, 6)) < 0.7 if gaps else np.ones((2, 4, 6), bool)
    given = torch.from_numpy(valid) if gaps else None
    found = confidence_weighted(torch.from_numpy(logits), torch.from_numpy(labels), gamma, given)
    assert found.item() == pytest.approx(slow_loss(logits, labels, gamma, valid), rel=1e-6)


def test_the_weights_have_no_gradient():
    logits = torch.randn(1, 2, 1, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[[0, 1, 1]]])
    confidence_weighted(logits, labels, 2.0).backward()
    shares = logits.detach().softmax(1)
    weight = (1 - shares.mean((0, 2, 3))) ** 2
    wanted = shares.clone()
    wanted[0, labels[0, 0], 0, torch.arange(3)] -= 1
    wanted *= weight[labels][:, None] / 3
    assert torch.allclose(logits.grad, wanted)


def test_nothing_to_learn_is_no_loss():
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    nothing = torch.full((1, 2, 2), IGNORED)
    assert confidence_weighted(logits, nothing, 2.0).item() == 0
    assert confidence_weighted(logits, nothing, 2.0, torch.zeros(1, 2, 2, dtype=torch.bool)).item() == 0
