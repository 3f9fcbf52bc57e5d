"""Coarser levels: who stands for whom."""

from pathlib import Path

import pytest

from models import hierarchy
from models.bundle import Bundle
from models.manifest import Merge

STREET = Path(__file__).parents[2] / "models" / "pretrained" / "street"


def test_level_follows_the_hierarchy() -> None:
    tree = [Merge(k=3, merge=(1, 2), into=1, height=0.1), Merge(k=2, merge=(0, 1), into=1, height=0.2)]
    assert hierarchy.level(tree, 4, 4).tolist() == [0, 1, 2, 3]
    assert hierarchy.level(tree, 3, 4).tolist() == [0, 1, 1, 3]
    assert hierarchy.level(tree, 2, 4).tolist() == [1, 1, 1, 3]
    for k in (1, 5):
        with pytest.raises(ValueError, match="between 2 and 4"):
            hierarchy.level(tree, k, 4)
    with pytest.raises(ValueError, match="stops at 3"):
        hierarchy.level(tree[:1], 2, 4)


def test_the_embedded_default_never_joins_sky_and_road() -> None:
    """Its golden image is a drawn street: what is in the middle of its top is sky, of its bottom road.

    So they are by labels: `tessera evaluate models/pretrained/street --data ../shared/data/camvid --dataset camvid
    --levels` names what every level joins.
    """
    bundle = Bundle.load(STREET)
    labels, manifest = bundle.golden.labels, bundle.manifest
    assert manifest.hierarchy_by == "belonging"
    height, width = labels.shape
    sky, road = int(labels[height // 20, width // 2]), int(labels[-height // 20, width // 2])
    assert sky != road
    for k in range(3, len(manifest.clusters) + 1):
        table = hierarchy.level(manifest.hierarchy, k, len(manifest.clusters))
        assert table[sky] != table[road]
    heights = [merge.height for merge in manifest.hierarchy]
    assert 0 < heights[0] < 0.3 < 0.5 < heights[-1] < 1
