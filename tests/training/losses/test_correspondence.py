"""The correspondence loss: what it ignores, what it keeps, and who is whose negative."""

import pytest
import torch

from training.losses.correspondence import (
    average_norm,
    center,
    correlation,
    correspondence,
    derangement,
    draw_points,
    drop_channels,
    normalize,
    pair_loss,
    reconstruction,
    sample,
    shifted_permutation,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def maps(generator, channels=6, count=3, side=4):
    return torch.randn(count, channels, side, side, generator=generator)


def test_unlike_codes_cost_nothing_under_the_clamp(generator):
    f, s = (maps(generator), maps(generator)), (maps(generator), maps(generator))
    pair = pair_loss(f, s, 0.1)
    assert (pair.similarity < 0).any()
    assert (pair.loss[pair.similarity < 0] == 0).all()
    free = pair_loss(f, s, 0.1, zero_clamp=False)
    assert (free.loss[pair.similarity < 0] != 0).all()


def test_no_loss_where_the_similarity_is_the_shift(generator):
    f = (maps(generator), maps(generator))
    wanted = correlation(*map(normalize, f))
    pair = pair_loss(f, (maps(generator), maps(generator)), wanted, centering="none")
    assert float(pair.loss.abs().max()) == 0


def test_attracts_above_the_shift_and_repels_below(generator):
    f = (torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1))
    for shift, sign in ((0.5, -1), (1.5, 1)):
        code = torch.tensor([1.0, 0.2]).reshape(1, 2, 1, 1).requires_grad_()
        pair_loss(f, (code, torch.tensor([0.2, 1.0]).reshape(1, 2, 1, 1)), shift).loss.mean().backward()
        toward = torch.tensor([0.2, 1.0]).reshape(1, 2, 1, 1) - code.detach()
        assert sign * float((code.grad * toward).sum()) > 0


def test_centering(generator):
    similarity = correlation(normalize(maps(generator)), normalize(maps(generator)))
    code, paper = center(similarity, "code"), center(similarity, "paper")
    assert float(code.mean()) == pytest.approx(float(similarity.mean()), abs=1e-6)
    assert float(paper.mean((3, 4)).abs().max()) < 1e-6
    assert torch.allclose(code - paper, similarity.mean().expand_as(code), atol=1e-6)
    assert center(similarity, "none") is similarity


def test_stabilize_stops_at_enough(generator):
    f, s = maps(generator), maps(generator)
    pair = pair_loss((f, f), (s, s), -1.0, centering="none", stabilize=True)
    own = pair.similarity > 0.8
    wanted = correlation(normalize(f), normalize(f)) + 1
    assert torch.allclose(pair.loss[own], -0.8 * wanted[own])


def test_features_get_no_gradient_and_both_codes_do(generator):
    f, g, s, t = (maps(generator).requires_grad_() for _ in range(4))
    pair_loss((f, g), (s, t), 0.1).loss.mean().backward()
    assert f.grad is None and g.grad is None  # noqa: PT018
    assert s.grad.abs().sum() > 0
    assert t.grad.abs().sum() > 0


def test_samples_lie_where_the_points_say():
    ramp = torch.linspace(-1, 1, 5).expand(1, 1, 5, 5)  # the value is x
    points = torch.tensor([[[[-1.0, 0.0], [0.5, 0.3]], [[0.0, 1.0], [1.0, -1.0]]]])
    assert torch.allclose(sample(ramp, points)[0, 0], points[0, ..., 0].T, atol=1e-6)


@pytest.mark.parametrize("others", [[3, 2, 0, 1], [1, 2, 3, 1]])
def test_a_partner_is_the_other_image_at_the_points_of_its_own(others, generator):
    """Once by changing places of samples, once, as no permutation can be turned round, of maps."""
    features = maps(generator, count=4, side=5)
    code = torch.randn(4, 3, 5, 5, generator=generator, requires_grad=True)
    here, there = (draw_points(4, 2, generator) for _ in range(2))
    found = correspondence((features, features), (code, code), (here, there), [torch.tensor(others)], [0.1, 0.2, 0.3])[
        "rand"
    ]
    partner = sample(features[others], there), sample(code[others], there)
    wanted = pair_loss((sample(features, here), partner[0]), (sample(code, here), partner[1]), 0.3)
    assert torch.equal(found.loss, wanted.loss)
    gradients = [torch.autograd.grad(pair.loss.sum(), code, retain_graph=True)[0] for pair in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_an_image_alone_has_no_random_term(generator):
    f, s = maps(generator), maps(generator)
    points = draw_points(3, 2, generator), draw_points(3, 2, generator)
    terms = correspondence((f, f), (s, s), points, [], [0, 0, 0])
    assert sorted(terms) == ["knn", "self"]
    others = [derangement(3, generator) for _ in range(4)]
    assert correspondence((f, f), (s, s), points, others, [0, 0, 0])["rand"].loss.shape == (12, 2, 2, 2, 2)


@pytest.mark.parametrize("n", [2, 3, 16])
def test_a_derangement_has_no_fixed_point_and_no_repeat(n, generator):
    for _ in range(50):
        drawn = derangement(n, generator)
        assert (drawn != torch.arange(n)).all()
        assert drawn.sort().values.tolist() == list(range(n))
    with pytest.raises(ValueError, match="alone"):
        derangement(1, generator)


def test_upstream_repeats_some(generator):
    drawn = [shifted_permutation(torch.randperm(16, generator=generator)) for _ in range(200)]
    assert all((d != torch.arange(16)).all() for d in drawn)
    assert sum(len(d.unique()) < 16 for d in drawn) > 60


def test_average_norm_keeps_ratios(generator):
    x = maps(generator)
    scaled = average_norm(x)
    assert float(scaled.norm(dim=1).mean()) == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(scaled / x, (scaled / x).flatten()[0].expand_as(x), rtol=1e-4)


def test_reconstruction_looks_at_directions(generator):
    x = maps(generator)
    assert float(reconstruction(3 * x, x)) == pytest.approx(-1.0, abs=1e-6)
    assert float(reconstruction(-x, x)) == pytest.approx(1.0, abs=1e-6)


def test_whole_channels_are_dropped_and_the_mean_stays(generator):
    x = torch.ones(64, 50, 3, 3)
    dropped = drop_channels(x, 0.1, generator)
    assert set(dropped.amax((2, 3)).unique().tolist()) == set(dropped.amin((2, 3)).unique().tolist())
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert drop_channels(x, 0.0, generator) is x
