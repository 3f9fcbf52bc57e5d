"""Targets are balanced, losses are zero where they should be."""

import pytest
import torch
from torch.nn import functional as F

from training.losses.semantics import alignment, balanced, batch_semantics, opponent_colors, orthogonality


def test_balanced_targets_are_wanted_equally_often_where_a_softmax_collapses() -> None:
    scores = torch.rand(300, 5, generator=torch.Generator().manual_seed(0)) * 0.2
    scores[:, 2] += 0.5  # everything is nearest to one
    plain = balanced(scores, temperature=0.05, strength=0)
    even = balanced(scores, temperature=0.05, strength=1)
    assert torch.allclose(even.sum(1), torch.ones(300), atol=1e-5)
    assert plain.mean(0)[2] > 0.95
    assert even.mean(0).tolist() == pytest.approx([0.2] * 5, abs=0.02)
    assert set(even.argmax(1).tolist()) == set(range(5))


def test_balance_can_be_partial() -> None:
    scores = torch.rand(300, 5, generator=torch.Generator().manual_seed(0)) * 0.2
    scores[:, 2] += 0.1
    wanted = [float(balanced(scores, temperature=0.05, strength=s).mean(0)[2]) for s in (0, 0.5, 1)]
    assert wanted[0] > 0.5 > wanted[1] > 0.25 > 0.22 > wanted[2]


def test_orthogonal_semantics_cost_nothing() -> None:
    assert float(orthogonality(torch.eye(4, 7))) == 0
    alike = F.normalize(torch.ones(4, 7), dim=1)
    assert float(orthogonality(alike)) == pytest.approx(3)  # every other row, at a cosine of 1


def test_batch_semantics_are_the_mean_direction() -> None:
    one = torch.eye(3, 8)
    assert torch.allclose(batch_semantics(torch.stack([one, 5 * one])), one)  # lengths do not count
    mixed = batch_semantics(torch.stack([one, one.roll(1, 0)]))
    assert torch.allclose(mixed.norm(dim=1), torch.ones(3))
    assert torch.allclose(mixed[0, :3], torch.tensor([0.5, 0.0, 0.5]).sqrt())


def test_alignment_crosses_the_views() -> None:
    first, second = torch.eye(3), torch.eye(3).roll(1, 0)
    sure = [(0.98 * target + 0.01).log() for target in (first, second)]
    crossed = alignment((sure[1], sure[0]), (first, second))
    straight = alignment((sure[0], sure[1]), (first, second))
    assert float(crossed) < 0.02 < 4 < float(straight)


def test_gray_has_no_hue_and_hues_count_as_much_as_light() -> None:
    gray = opponent_colors(torch.full((1, 3, 1, 1), 0.45))
    assert torch.allclose(gray, torch.zeros(1, 3, 1, 1), atol=1e-4)
    lighter = opponent_colors(torch.full((1, 3, 1, 1), 0.7))
    assert lighter[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=0.01)
    leaf = opponent_colors(torch.tensor([0.3, 0.5, 0.2])[None, :, None, None])
    assert float(leaf[0, 2]) < -1 < float(leaf[0, 0])  # green, and hardly darker
