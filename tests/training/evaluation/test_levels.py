"""Figures of fewer clusters: those of the label maps with fewer clusters, whichever tree makes them."""

from pathlib import Path

import numpy as np
import pytest

from models import bundle as bundles
from models import hierarchy
from tests.tiny import write_tiny_bundle
from training.evaluation import metrics
from training.evaluation.levels import levels

CLASSES = ("road", "sky", "tree")


def test_a_level_scores_as_its_label_map_does(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    random = np.random.default_rng(0)
    predicted, true = random.integers(0, 5, 400), random.integers(0, 3, 400)
    true[:200] = predicted[:200] % 3
    found = levels(bundle, metrics.confusion(predicted, true, 5, 3), CLASSES)
    assert found["by"] == "centroids"
    assert [row["k"] for row in found["rows"]] == [5, 4, 3, 2]
    assert "centroids" not in found["rows"][0]  # they are the tree
    for row in found["rows"]:
        counts = metrics.confusion(hierarchy.level(bundle.manifest.hierarchy, row["k"], 5)[predicted], true, 5, 3)
        assert row["one_to_one"] == metrics.score(counts).accuracy
        right = sum(np.bincount(true[np.isin(predicted, group)]).max() for group in groups(bundle, row["k"]))
        assert row["many_to_one"] == pytest.approx(right / 400)
    assert found["rows"][0]["joined"] is None
    assert found["rows"][1]["joined"] == ["sky", "tree"]  # 1 and 2


def groups(bundle: bundles.Bundle, k: int) -> list[np.ndarray]:
    table = hierarchy.level(bundle.manifest.hierarchy, k, 5)
    return [np.flatnonzero(table == into) for into in np.unique(table)]


def test_beside_a_tree_by_belonging_stands_that_of_the_centroids(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    merges = [{"k": 4, "merge": [3, 4], "into": 4, "height": 0.1}, {"k": 3, "merge": [0, 1], "into": 1, "height": 0.2},
              {"k": 2, "merge": [1, 2], "into": 2, "height": 0.3}]  # fmt: skip
    bundle = bundles.rewrite(bundle, {"hierarchy": merges, "hierarchy_by": "belonging"})
    counts = np.array([[10, 0, 0], [0, 10, 0], [0, 0, 0], [0, 0, 10], [0, 0, 10]])
    found = levels(bundle, counts, CLASSES)
    assert found["by"] == "belonging"
    assert [row["one_to_one"] for row in found["rows"]] == [0.75, 1.0, 0.75, 0.75]
    assert found["rows"][1]["joined"] == ["tree", "tree"]
    assert found["rows"][3]["joined"] == ["road", None]
    assert found["rows"][1]["centroids"]["joined"] != ["tree", "tree"]  # white and black are the farthest apart
    assert found["rows"][1]["centroids"]["one_to_one"] == 0.75
