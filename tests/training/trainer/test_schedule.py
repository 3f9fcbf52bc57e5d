"""Rates climb, and fall to nothing."""

import math
from itertools import pairwise

import pytest

from training.trainer.schedule import half_cosine, warmed_up


def test_half_a_cosine() -> None:
    assert [half_cosine(done) for done in (0.0, 1.0, 1.5)] == [1.0, 0.0, 0.0]
    assert half_cosine(1 / 3) == pytest.approx(0.75)  # cos 60° = 1/2


def test_a_climb_and_then_the_fall() -> None:
    rates = [warmed_up(0.2, done, 100, 20) for done in range(101)]
    assert rates[0] == pytest.approx(0.2 / 20)
    assert rates[100] == 0
    assert max(rates) == rates[19]
    assert all(early < late for early, late in pairwise(rates[:20]))
    assert rates[60] == pytest.approx(0.2 * math.cos(math.radians(180 * 0.6 / 2)) ** 2)
