"""What belongs together, on drawn rows of regions and drawn images of which the truth is known."""

import numpy as np
import pytest
import torch

from models.hierarchy import level
from training.clustering.hierarchy import tree_of
from training.discovery import belonging
from training.discovery.belonging import BelongingOptions
from training.discovery.region_evidence import RegionCollector, RegionEvidence, RegionEvidenceOptions

FEW = BelongingOptions(clusterings=(2, 3), seeds=2, neighbors=5)


def drawn(groups: list[int], *, images: int = 12, each: int = 4, seed: int = 0) -> RegionEvidence:
    """Regions of clusters, of which those of one group look alike, though never the same: codes near the group's."""
    random = np.random.default_rng(seed)
    cluster = np.tile(np.repeat(np.arange(len(groups)), each), images)
    of = np.array(groups)[cluster]
    codes = 3.0 * np.eye(8)[of] + np.eye(8)[4 + cluster % 4] + 0.3 * random.normal(size=(len(of), 8))
    texture = of[:, None] + 0.2 * random.normal(size=(len(of), 5))
    rows = (np.eye(len(groups))[cluster], codes, texture)
    image = np.repeat(np.arange(images), each * len(groups))
    return RegionEvidence(*(row.astype(np.float32) for row in rows), image)


def test_clusters_of_one_group_are_near_and_become_one() -> None:
    groups = [0, 1, 0, 2, 1, 2, 0]
    apart = belonging.distances(drawn(groups), FEW)
    assert apart is not None
    same = np.equal.outer(groups, groups)
    pairs = ~np.eye(len(groups), dtype=bool)
    assert apart[same & pairs].max() < 0.3 < 0.5 < apart[~same].min()
    tree = tree_of(apart, torch.randn(7, 8, generator=torch.Generator().manual_seed(0)), [1 / 7] * 7)
    table = level(tree.merges, 3, 7)
    assert len(set(zip(table.tolist(), groups, strict=True))) == 3


@pytest.mark.parametrize("images", [1, 2, 12])
@pytest.mark.parametrize("groups", [[0, 1], [0, 0, 1], [0, 1, 0, 2, 1, 2, 0]])
def test_distances_are_whole_whatever_there_is(groups: list[int], images: int) -> None:
    """One image has no other to be linked to; two regions make no clusterings of four."""
    evidence = drawn(groups, images=images, each=1)
    apart = belonging.distances(evidence)
    assert apart is not None
    assert apart.shape == (len(groups), len(groups))
    assert np.isfinite(apart).all()
    assert 0 <= apart.min() <= apart.max() <= 1
    assert (apart == apart.T).all()
    again = belonging.distances(evidence)
    assert again is not None
    assert (apart == again).all()


def test_nothing_to_tell_them_apart_is_halfway_and_an_unseen_cluster_is_nobodys() -> None:
    shares = np.full((6, 3), 0.5, np.float32)
    shares[:, 1] = 0
    alike = RegionEvidence(shares, np.ones((6, 4), np.float32), np.ones((6, 5), np.float32), np.arange(6))
    assert belonging.distances(alike, FEW).tolist() == [[0, 0, 0.5], [0, 0, 0], [0.5, 0, 0]]  # type: ignore[union-attr]
    assert belonging.in_use(alike).tolist() == [True, False, True]
    shares = np.zeros((6, 3), np.float32)
    shares[:, 2] = 1
    alone = RegionEvidence(shares, alike.codes, alike.texture, alike.image)
    assert belonging.distances(alone, FEW) is None


def halves(top: int, bottom: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of two gray halves, clusters 0 and 1; the code is the gray."""
    image = np.full((40, 60, 3), top, np.uint8)
    image[20:] = bottom
    labels = np.zeros((40, 60), np.uint8)
    labels[20:] = 1
    return image, labels, image[5::10, 5::10, :1].astype(np.float32).transpose(2, 0, 1)


def test_a_row_for_every_region_with_what_it_shows() -> None:
    collector = RegionCollector(3, 1, RegionEvidenceOptions(contrast=0))  # which would sharpen the border
    collector.show(7, *halves(50, 200))
    evidence = collector.evidence()
    assert evidence is not None
    assert evidence.shares.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert evidence.codes.ravel().tolist() == [50, 200]
    assert evidence.image.tolist() == [7, 7]
    assert evidence.texture[:, :3] == pytest.approx(0, abs=1e-3)


def test_what_holds_no_data_is_in_no_row() -> None:
    image, labels, code = halves(50, 200)
    collector = RegionCollector(3, 2)
    labels[20:] = 255
    collector.show(0, image, labels, code)
    evidence = collector.evidence()
    assert evidence is not None
    assert evidence.codes.ravel().tolist() == [50]
    collector = RegionCollector(3, 1)
    collector.show(0, image, np.full_like(labels, 255), code)
    assert collector.evidence() is None


def test_many_and_large_images_give_a_bounded_number_of_rows() -> None:
    random = np.random.default_rng(0)
    options = RegionEvidenceOptions(regions=6, pixels=2400, scale=1.0)
    collector = RegionCollector(2, 3, options)
    for i in range(3):
        image = random.integers(0, 256, (80, 120, 3), dtype=np.uint8)
        collector.show(i, image, random.integers(0, 2, (80, 120), dtype=np.uint8), image[::40, ::40, 0][None])
    evidence = collector.evidence()
    assert evidence is not None
    assert np.bincount(evidence.image).tolist() == [2, 2, 2]
    assert evidence.shares.sum(axis=1) == pytest.approx(1)
