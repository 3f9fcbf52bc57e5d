"""training/discovery/align.py: who keeps id, name and color, and what is said of the others."""

import numpy as np

from models.manifest import Cluster
from training.discovery.align import align, shared

COLORS = ["#0066cc", "#cc3300", "#ffcc00", "#009966", "#660099"]
OLD = [
    Cluster(name=name, color=color, fraction=0.25)
    for name, color in zip(["sky", "road", "tree", "car"], COLORS[:4], strict=True)
]


def maps(old: list[int], new: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.array([old], np.uint8), np.array([new], np.uint8))]


def test_the_same_clusters_under_other_ids_keep_theirs():
    before = [0] * 10 + [1] * 8 + [2] * 6 + [3] * 4
    renamed = [2, 0, 3, 1]
    table = shared(maps(before, [renamed[i] for i in before]), 4, 4)
    found = align(table, OLD)
    assert [renamed.index(n) for n in found.order] == [0, 1, 2, 3]
    assert found.names == tuple((one.name, one.color) for one in OLD)
    assert [(i, iou) for i, _, iou in found.matched] == [(i, 1.0) for i in range(4)]
    assert found.said == ()


def test_a_split_a_new_and_a_gone_cluster_are_told():
    before = [0] * 20 + [1] * 10 + [2] * 10 + [3] * 4
    #          sky, and a part of it        road       tree: half and half    car: taken by road
    after = [4] * 13 + [0] * 7 + [1] * 10 + [2] * 5 + [3] * 5 + [1] * 4
    found = align(shared(maps(before, after), 4, 5), OLD)
    assert [found.order[i] for i in (0, 1)] == [4, 1]
    assert found.order[2] in (2, 3)
    kept = {OLD[i].name: i for i, name, _ in found.matched if OLD[i].name == name}
    assert kept == {"sky": 0, "road": 1, "tree": 2}
    assert "car is gone: most of it is in road now" in found.said
    assert sorted(s.split(" was ")[1] for s in found.said if " was " in s) == ["split off sky", "split off tree"]
    fresh = [pair for pair in found.names if pair[0] not in {one.name for one in OLD}]
    assert len(fresh) == len({name for name, _ in fresh}) == 2
    assert len({color for _, color in found.names}) == 5


def test_fewer_clusters_keep_names_and_colors_under_ids_there_are():
    before = [0] * 9 + [1] * 3 + [2] * 8 + [3] * 8
    after = [0] * 12 + [1] * 8 + [2] * 8
    found = align(shared(maps(before, after), 4, 3), OLD)
    assert found.names[0] == ("sky", COLORS[0])
    assert found.names[2] == ("tree", COLORS[2])
    assert found.names[1] == ("car", COLORS[3])
    assert "car is now cluster 1: there are only 3" in found.said
    assert "road is gone: most of it is in sky now" in found.said


def test_what_is_no_cluster_counts_nowhere():
    assert shared(maps([0, 255, 1], [1, 1, 255]), 2, 2).tolist() == [[0, 1], [0, 0]]


def test_nothing_in_common_keeps_nothing():
    names = [Cluster(name=f"cluster {i}", color=COLORS[i], fraction=0.5) for i in range(2)]
    found = align(np.zeros((2, 3), np.int64), names)
    assert sorted(found.order) == [0, 1, 2]
    assert [name for name, _ in found.names] == ["cluster 2", "cluster 3", "cluster 4"]
    assert "cluster 0 is gone" in found.said
    assert any("in none of the images" in s for s in found.said)
