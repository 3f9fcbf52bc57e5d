"""Coarser levels: who stands for whom."""

import pytest

from models import hierarchy
from models.manifest import Merge


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
