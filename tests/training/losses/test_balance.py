"""training/losses/balance.py: from good and bad starts to where the paper tunes by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.balance import Balance
from training.losses.correspondence import center, correlation, correspondence, derangement, draw_points, normalize

SHARES = [0.5, 0.5, 0.1]
KINDS = 4


def maps(generator: torch.Generator) -> Tensor:
    """Features [16, 12, 6, 6] of images of four kinds: each has two grounds of its own, and one that all have."""
    grounds = torch.rand(2 * KINDS + 1, 12, generator=generator)
    kind = torch.arange(16) % KINDS
    drawn = torch.randint(3, (16, 6, 6), generator=generator)
    ids = torch.where(drawn == 2, 2 * KINDS, 2 * kind[:, None, None] + drawn)
    found = grounds[ids] + 0.05 * torch.randn(16, 6, 6, 12, generator=generator)
    return found.permute(0, 3, 1, 2)


def trained(start: list[float] | None, steps: int = 220) -> Balance:
    """A linear head that learns under the balance, from given shifts."""
    generator = torch.Generator().manual_seed(0)
    features = maps(generator)
    torch.manual_seed(0)
    head = nn.Conv2d(12, 8, 1)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    balance, unit = Balance(), normalize(features)
    like = unit.roll(KINDS, 0)  # of the same kind
    others = unit.roll(1, 0)
    balance.begin((center(correlation(unit, other), "code") for other in (unit, like, others)), SHARES, start)
    for _ in range(steps):
        partner = (torch.arange(16) + KINDS * int(torch.randint(1, 4, (), generator=generator))) % 16
        points = (draw_points(16, 4, generator), draw_points(16, 4, generator))
        drawn = [derangement(16, generator) for _ in range(3)]
        codes = head(features), head(features[partner])
        terms = correspondence((features, features[partner]), codes, points, drawn, balance.shifts)
        loss = sum(w * terms[n].loss.mean() for n, w in (("self", 0.67), ("knn", 0.25), ("rand", 0.63)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        seen = {f"log/{name}_similarity": pair.similarity.mean() for name, pair in terms.items()}
        own = terms["self"].similarity
        seen |= {"log/self_near_0": (own.abs() < 0.2).float().mean(), "log/self_near_1": (own > 0.8).float().mean()}
        balance.follow(seen, steps)
    return balance


@pytest.mark.parametrize(
    "start",
    [
        None,
        pytest.param([-0.5, -0.5, -0.5], marks=pytest.mark.slow),
        pytest.param([3.0, 3.0, 3.0], marks=pytest.mark.slow),
        pytest.param([0.9, -0.5, -0.5], marks=pytest.mark.slow),
    ],
)
def test_similarities_end_where_the_paper_wants_them(start):
    balance = trained(start)
    own, knn, rand, near_0, near_1 = balance.seen.tolist()
    assert 0.2 < knn < 0.4
    assert -0.05 < rand < 0.1
    assert own > knn
    assert balance.said() == f"similarity of neighbors {knn:.2f} (wanted 0.3), of random images {rand:.2f} (near 0)"
    assert near_0 + near_1 > 0.4  # two peaks: of even ones 0.3 would be there


def test_shifts_stay_within_reach_of_the_similarities():
    balance = Balance()
    similar = torch.linspace(0, 1, 1001)
    balance.begin([similar] * 3, SHARES, [9.0, -9.0, 0.4])
    assert balance.shifts.tolist() == pytest.approx([0.99, 0.01, 0.4], abs=1e-3)
    alike = {f"log/{name}": torch.ones(()) for name in ("knn_similarity", "rand_similarity", "self_near_1")}
    for _ in range(500):
        balance.follow(alike, 500)
    assert balance.shifts.tolist() == pytest.approx([2.95, 2.95, 2.95], abs=1e-2)
    apart = {"log/self_near_1": torch.tensor(0.3)}
    for _ in range(500):
        balance.follow(apart, 500)
    assert balance.shifts.tolist()[1] == pytest.approx(-1.95, abs=1e-2)
    assert balance.shifts.tolist()[::2] == pytest.approx([0.5, 0.9], abs=1e-2)  # nothing asks for more of these


def test_aims_that_cannot_both_be_had_are_said():
    balance = Balance()
    for knn, rand, why in ((0.1, 0.08, "so both cannot be had"), (0.9, 0.3, "would bring them nearer")):
        balance.seen.copy_(torch.tensor([0.5, knn, rand, 0.3, 0.3]))
        assert balance.said().endswith(why)


def test_the_trace_is_bounded_and_tells_steps_shifts_and_similarities():
    balance = Balance()
    balance.begin([F.normalize(torch.rand(9, 9))] * 3, SHARES, None)
    grown = sum(balance.follow({"log/knn_similarity": torch.tensor(0.3)}, 950) for _ in range(950))
    facts = balance.facts()
    assert grown == len(facts["rows"]) == 95
    assert facts["columns"][:4] == ["step", "shift_self", "shift_knn", "shift_rand"]
    assert [row[0] for row in facts["rows"]] == list(range(1, 951, 10))
    assert facts["rows"][-1][facts["columns"].index("knn_similarity")] == pytest.approx(0.3, abs=1e-3)
    again = Balance()
    again.load_state_dict(balance.state_dict())
    assert again.facts() == facts
