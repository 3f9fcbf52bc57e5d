"""training/discovery/choose_k.py: the number of groups is found where there are groups; elsewhere nothing is."""

import pytest
import torch
from torch import Tensor

from training.discovery.choose_k import KS, At, curve, overlap, propose


def groups(k: int, *, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Views [3, 4000, 24] of k groups of unlike sizes, the changed ones a little off; places of 40 images."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.linalg.qr(torch.randn(24, 24, generator=generator)).Q[:k]
    group = torch.multinomial(torch.rand(k, generator=generator) + 0.3, 4000, True, generator=generator)

    def off(scale: float) -> Tensor:
        return scale * 0.4 * torch.randn(4000, 24, generator=generator)

    codes = centers[group] + off(noise)
    return torch.stack([codes, codes + off(0.3 * noise), codes + off(0.4 * noise)]), torch.arange(4000) % 40


@pytest.mark.parametrize("k", [5, 8, 12])
def test_as_many_clusters_as_groups(k):
    views, image = groups(k, noise=0.35)
    found = propose(views, image, ks=[3, k - 1, k, k + 1, k + 3])
    assert found is not None
    assert found.k == k
    best = next(at for at in found.curve if at.k == k)
    assert best.stability > 0.9 > 0.5 > best.chance
    assert best.unused == 0
    assert found.sentence.startswith(f"K = {k} is the most telling of 3 to {k + 3}: ")


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.35, 0.6])
@pytest.mark.parametrize("k", [5, 8, 12])
def test_of_all_numbers_as_many_clusters_as_groups_within_one_in_eight(k, noise):
    found = propose(*groups(k, noise=noise, seed=1))
    assert found is not None
    assert abs(found.k - k) <= k / 8


def test_structureless_codes_are_worth_little():
    views = torch.randn(1, 2000, 6, generator=torch.Generator().manual_seed(0))
    assert max(at.worth for at in curve(views, torch.arange(2000) % 20, ks=[4, 8])) < 0.1


def test_the_same_every_time_and_the_facts_are_what_the_report_reads():
    views, image = groups(4, noise=0.35)
    first, again = (propose(views, image, ks=[3, 4, 5]) for _ in range(2))
    assert first is not None
    assert first == again
    facts = first.facts()
    assert facts["proposed"] == 4
    assert {"k", "stability", "silhouette", "unused"} <= facts["curve"][0].keys()


def test_too_few_codes_say_nothing_of_k():
    assert propose(torch.randn(1, 5, 3), torch.arange(5)) is None
    assert [at.k for at in curve(torch.randn(1, 40, 3), torch.arange(40))] == [k for k in KS if 4 * k <= 20]


def test_overlap_counts_every_cluster_alike():
    a = torch.tensor([0] * 90 + [1] * 10)
    b = torch.tensor([1] * 90 + [0] * 5 + [2] * 5)
    assert overlap(a, a, 3) == pytest.approx(2 / 3)  # a third that neither has
    assert overlap(a, b, 3) == pytest.approx((1 + 0.5) / 3)


def test_unused_clusters_and_those_that_come_by_chance_are_worth_less():
    good = At(8, 0.9, 0.3, 0.5, 0)
    assert At(8, 0.9, 0.3, 0.5, 4).worth == pytest.approx(good.worth / 2)
    assert At(8, 0.9, 0.9, 0.5, 0).worth == 0
    assert At(8, 0.2, 0.3, 0.5, 0).worth == 0
