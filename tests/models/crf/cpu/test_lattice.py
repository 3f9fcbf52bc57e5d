"""The lattice against the paper, written the slow way: dictionaries of corners, one point and one vertex at a time."""

import numpy as np
import pytest

from models.crf.cpu import lattice
from models.crf.cpu.lattice import aligned
from models.crf.cpu.simd import UNITS
from models.crf.params import CRFError
from models.parallel import ThreadTeam


def reference(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Splat, blur, slice. features [N, d], values [N, C] -> [N, C], in float64."""
    d = features.shape[1]
    basis = np.zeros((d + 1, d))  # columns: an orthogonal basis of the plane of coordinates that sum to zero
    for i in range(d):
        basis[: i + 1, i], basis[i + 1, i] = 1, -(i + 1)
    spread = np.sqrt(2 / 3) * (d + 1)  # splat, blur and slice together have the variance of a unit Gaussian
    points = features.astype(np.float64) @ (basis / np.linalg.norm(basis, axis=0)).T * spread
    corners = []
    for point in points:
        near = np.rint(point / (d + 1)).astype(int) * (d + 1)
        order = np.argsort(-(point - near), kind="stable")
        excess = near.sum() // (d + 1)
        if excess > 0:
            near[order[d + 1 - excess :]] -= d + 1
        if excess < 0:
            near[order[:-excess]] += d + 1
        order = np.argsort(-(point - near), kind="stable")
        gap = (point - near)[order]
        weights = [1 - (gap[0] - gap[d]) / (d + 1), *((gap[d - r] - gap[d + 1 - r]) / (d + 1) for r in range(1, d + 1))]
        simplex = []
        for r in range(d + 1):
            corner = near + r
            corner[order[d + 1 - r :]] -= d + 1
            simplex.append((tuple(corner), weights[r]))
        corners.append(simplex)
    table = {corner: np.zeros(values.shape[1]) for simplex in corners for corner, _ in simplex}
    for simplex, value in zip(corners, values, strict=True):
        for corner, weight in simplex:
            table[corner] += weight * value
    for axis in range(d + 1):
        step = np.ones(d + 1, int)
        step[axis] = -d
        ends = {corner: [tuple(np.array(corner) + sign * step) for sign in (1, -1)] for corner in table}
        table = {c: v + 0.5 * sum(table[e] for e in ends[c] if e in table) for c, v in table.items()}
    return np.array([sum(weight * table[corner] for corner, weight in simplex) for simplex in corners])


def filtered(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    built, width = lattice.build(features, ThreadTeam(1)), values.shape[1]
    rows, held = aligned(values.size), aligned((built.vertices + 1) * values.shape[1])
    rows[:] = values.ravel()
    lattice.splat(rows, 0, built, held, width, width, UNITS[0], 0, 0, built.vertices)
    lattice.blur(built, held, width, UNITS[0], 0, width)
    table = held.reshape(-1, values.shape[1])
    assert not table[built.vertices].any(), "the row of zeros was written to"
    return np.einsum("nr,nrc->nc", built.weight, table[built.vertex])


@pytest.mark.parametrize(("d", "spread"), [(1, 5), (2, 4), (3, 2), (5, 0.5), (5, 1.5), (5, 40)])
def test_filters_as_the_paper_says(d: int, spread: float) -> None:
    rng = np.random.default_rng(d)
    features = rng.uniform(-spread, spread, (300, d)).astype(np.float32)
    values = rng.random((300, 8)).astype(np.float32)
    expected = reference(features, values)
    np.testing.assert_allclose(filtered(features, values), expected, rtol=2e-4, atol=2e-4)


def test_approximates_a_gaussian() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 6, (2000, 2)).astype(np.float32)
    values = np.repeat(np.sin(features.sum(axis=1, keepdims=True)) + 1, 8, axis=1).astype(np.float32)
    kernel = np.exp(-((features[:, None] - features[None]) ** 2).sum(axis=2) / 2)
    smooth = kernel @ values / kernel.sum(axis=1, keepdims=True)
    ours = filtered(features, values) / filtered(features, np.ones_like(values))
    assert np.abs(ours - smooth).mean() < 0.03


def test_weights_are_barycentric_and_edges_are_complete() -> None:
    features = np.random.default_rng(1).uniform(0, 9, (500, 5)).astype(np.float32)
    built = lattice.build(features, ThreadTeam(1))
    assert built.weight.min() > -1e-5
    np.testing.assert_allclose(built.weight.sum(axis=1), 1, atol=1e-5)
    vertices = np.repeat(np.arange(built.vertices), np.diff(built.first))
    forward = sorted(zip(built.vertex.ravel(), np.repeat(np.arange(500), 6), built.weight.ravel(), strict=True))
    assert forward == sorted(zip(vertices, built.point, built.share, strict=True))


def test_more_vertices_than_expected_grow_the_table() -> None:
    features = np.random.default_rng(2).uniform(0, 100, (3000, 5)).astype(np.float32)
    built = lattice.build(features, ThreadTeam(1))  # every point has six vertices almost to itself
    assert built.vertices > 2 * 3000
    assert built.first[-1] == built.point.size == 6 * 3000


def test_threads_build_the_same_lattice_and_something_else_meanwhile() -> None:
    features = np.random.default_rng(3).uniform(0, 9, (2000, 5)).astype(np.float32)
    alone, done = lattice.build(features, ThreadTeam(1)), list[str]()
    with ThreadTeam(3) as team:
        together = lattice.build(features, team, lambda: done.append("meanwhile"))
    assert done == ["meanwhile"]
    for mine, other in zip((*alone[:5], *alone.lines), (*together[:5], *together.lines), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_too_fine_is_refused() -> None:
    with pytest.raises(CRFError, match="larger"):
        lattice.build(np.full((4, 5), 1e5, np.float32), ThreadTeam(1))
