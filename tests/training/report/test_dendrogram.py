"""The tree joins what the hierarchy joins, at its heights."""

import re
import xml.etree.ElementTree as ET

import pytest

from models.manifest import Cluster, Merge
from training.report.dendrogram import dendrogram

EVIL = '<b onload="x">&\'"'


def clusters(*names: str) -> list[Cluster]:
    return [Cluster(name=name, color=f"#0000{i:02x}", fraction=1 / len(names)) for i, name in enumerate(names)]


def test_leaves_that_merge_first_stand_together_and_branches_end_at_their_heights() -> None:
    merges = [Merge(k=3, merge=(0, 3), into=3, height=0.5), Merge(k=2, merge=(1, 3), into=1, height=1.0)]
    svg = ET.fromstring(dendrogram(clusters("cluster 0", "road", "cluster 2", "tree"), merges))
    leaves = ["".join(text.itertext()) for text in svg.findall("text[@class='leaf']")]
    assert [leaf.split()[0] for leaf in leaves] == ["1", "3", "cluster", "cluster"]
    assert leaves[2].startswith("cluster 0")  # a name that is the id is written once
    first, second = [[float(x) for x in re.findall(r"[MHV]([\d.]+)", one.attrib["d"])] for one in svg.findall("path")]
    left, half, whole = first[0], first[1], second[1]
    assert half - left == (whole - left) / 2
    assert [one.find("title").text for one in svg.findall("path")][1].startswith("1 and 3 become 1: 2 left")  # type: ignore[union-attr]


def test_heights_by_belonging_keep_their_scale_and_stand_at_their_merges() -> None:
    merges = [Merge(k=2, merge=(0, 2), into=0, height=0.25)]
    svg = ET.fromstring(dendrogram(clusters("a", "b", "c"), merges, "belonging"))
    (mark,) = svg.findall("line[@class='mark']")
    (branch,) = svg.findall("path")
    left, quarter = (float(x) for x in re.findall(r"[MH]([\d.]+)", branch.attrib["d"])[:2])
    assert quarter - left == pytest.approx((float(mark.attrib["x1"]) - left) / 2, abs=0.1)
    assert "0.25" in [text.text for text in svg.findall("text")]


def test_odd_trees_are_drawn() -> None:
    assert ET.fromstring(dendrogram(clusters(EVIL, "x" * 64), [])) is not None
    falling = [Merge(k=3, merge=(0, 1), into=0, height=0.9), Merge(k=2, merge=(0, 2), into=0, height=-0.1)]
    drawn = dendrogram(clusters("a", "b", "c", "d"), falling)
    assert "nan" not in drawn
    assert EVIL not in dendrogram(clusters(EVIL, "b"), [])
