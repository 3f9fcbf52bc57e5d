"""The tree of clusters: whose linkage it is, and what its heights may be."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage

from models.hierarchy import level
from training.clustering.hierarchy import cosine_distance, hierarchy, tree_of


def drawn(k: int, seed: int) -> torch.Tensor:
    """Distances 0..1 of k clusters that keep no rule but symmetry."""
    apart = torch.rand(k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (apart + apart.T) / 2


def pixel_by_pixel(apart: np.ndarray, pixels: list[int]) -> list[float]:
    """Heights of scipy's average linkage of all pixels, which lie 0 apart within a cluster: the slow reference."""
    of = np.repeat(np.arange(len(pixels)), pixels)
    full = apart.copy()
    np.fill_diagonal(full, 0.0)
    pairs = full[of][:, of][np.triu_indices(len(of), 1)]
    return linkage(pairs, "average")[:, 2][-(len(pixels) - 1) :].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_linkage_weighs_a_cluster_as_scipy_weighs_its_pixels(seed: int) -> None:
    apart, pixels = drawn(7, seed), [1, 9, 4, 2, 7, 3, 5]
    merges = hierarchy(apart, [count / sum(pixels) for count in pixels])
    assert [merge.height for merge in merges] == pytest.approx(pixel_by_pixel(apart.numpy(), pixels)[:-1])


@pytest.mark.parametrize("k", [2, 3, 40])
def test_heights_stay_in_the_range_of_the_distances_and_never_fall(k: int) -> None:
    apart = drawn(k, k).round(decimals=1)  # with ties
    heights = [merge.height for merge in hierarchy(apart, [1 / k] * k)]
    assert len(heights) == k - 2
    assert heights == sorted(heights)
    pairs = apart[~torch.eye(k, dtype=torch.bool)]
    assert all(pairs.min() <= height <= pairs.max() for height in heights)


def test_what_no_image_shows_joins_first_and_draws_nothing_with_it() -> None:
    apart = np.array([[0, 0.9, 0, 0.3], [0.9, 0, 0, 0.8], [0, 0, 0, 0], [0.3, 0.8, 0, 0]])
    tree = tree_of(apart, torch.eye(4), [0.1, 0.2, 0.4, 0.3])  # of other images cluster 2 has the most
    assert tree.by == "belonging"
    assert [merge.height for merge in tree.merges] == pytest.approx([0.0, 0.3])
    assert level(tree.merges, 2, 4)[[0, 3]].tolist() == [3, 3]


def test_without_images_the_tree_ranks_centroids_and_says_so() -> None:
    centroids = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    tree = tree_of(None, centroids, [0.2, 0.3, 0.5])
    assert tree.by == "centroids"
    assert tree.merges == hierarchy(cosine_distance(centroids), [0.2, 0.3, 0.5])
    assert tree.merges[0].merge == (0, 1)
