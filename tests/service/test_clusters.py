"""Names and colors that people give: they survive, they never lead in circles, they never meet other clusters."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from service.clusters import Change, Clusters
from service.errors import BadOption, NotFound


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def patch(clusters: Clusters, cluster: int, **what: object) -> None:
    asyncio.run(clusters.patch(cluster, Change.model_validate(what)))


def test_changes_survive_a_restart(bundle: Bundle, tmp_path: Path) -> None:
    clusters = Clusters(bundle, tmp_path)
    patch(clusters, 1, name="  grass ", color="#00ff00")
    patch(clusters, 1, hidden=True)
    patch(clusters, 2, merged_into=1)
    again = Clusters(bundle, tmp_path)
    assert again.appearance.names == ("red", "grass", "blue", "white", "black")
    assert again.appearance.colors[1].tolist() == [0, 255, 0]
    assert again.appearance.hidden == {1}
    assert again.appearance.becomes.tolist() == [0, 1, 1, 3, 4]
    assert [f.name for f in tmp_path.iterdir()] == [f"{bundle.digest}.json"]


def test_null_takes_a_change_back(bundle: Bundle, tmp_path: Path) -> None:
    clusters = Clusters(bundle, tmp_path)
    patch(clusters, 1, name="grass", merged_into=0)
    patch(clusters, 1, name=None, merged_into=None)
    assert clusters.appearance.names[1] == "green"
    assert clusters.appearance.becomes.tolist() == [0, 1, 2, 3, 4]


def test_another_bundle_starts_with_its_own_names(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    patch(Clusters(bundle, tmp_path / "state"), 1, name="grass")
    other = Clusters(Bundle.load(make_bundle("other")), tmp_path / "state")
    assert other.appearance.names[1] == "green"


def test_merges_follow_each_other_and_never_close_a_circle(bundle: Bundle) -> None:
    clusters = Clusters(bundle, None)
    patch(clusters, 0, merged_into=1)
    patch(clusters, 1, merged_into=2)
    assert clusters.appearance.becomes.tolist() == [2, 2, 2, 3, 4]
    for cluster, target in ((2, 0), (2, 1), (3, 3)):
        with pytest.raises(BadOption, match="circle"):
            patch(clusters, cluster, merged_into=target)
    with pytest.raises(BadOption, match="0 to 4"):
        patch(clusters, 3, merged_into=5)
    with pytest.raises(NotFound):
        patch(clusters, 5, name="x")
    assert clusters.appearance.becomes.tolist() == [2, 2, 2, 3, 4]  # a refusal changes nothing


def test_merges_by_hand_come_before_the_hierarchy(bundle: Bundle) -> None:
    clusters = Clusters(bundle, None)
    patch(clusters, 2, merged_into=0)
    assert clusters.table(None).tolist() == [0, 1, 0, 3, 4]
    assert clusters.table(3).tolist() == [3, 1, 3, 3, 4]
    for k in clusters.levels:
        assert len(set(clusters.table(k).tolist())) <= k
    with pytest.raises(BadOption, match="2 to 5"):
        clusters.table(9)


def test_neighbors_are_the_nearest_three_by_cosine(bundle: Bundle) -> None:
    clusters = Clusters(bundle, None)
    cosines = bundle.centroids @ bundle.centroids.T
    for i, near in enumerate(clusters.neighbors):
        assert len(near) == 3
        assert i not in [j for j, _ in near]
        others = sorted((cosines[i, j] for j in range(5) if j != i), reverse=True)
        np.testing.assert_allclose([c for _, c in near], others[:3], atol=1e-4)


def test_a_folder_that_cannot_be_written_keeps_names_in_memory(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    clusters = Clusters(bundle, tmp_path / "file" / "state")
    assert not clusters.persistent
    assert "TESSERA_STATE" in caplog.text
    patch(clusters, 0, name="brick")
    assert clusters.appearance.names[0] == "brick"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_keeps_names_in_memory(bundle: Bundle, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not Clusters(bundle, tmp_path).persistent


def test_a_disk_that_fails_later_keeps_names_in_memory(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clusters = Clusters(bundle, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    patch(clusters, 0, name="brick")
    assert clusters.appearance.names[0] == "brick"
    assert not clusters.persistent
    assert "No space left" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"bundle": "x", "clusters": {"9": {"name": "far"}}}',
        '{"bundle": "x", "clusters": {"0": {"nom": "far"}}}',
        '{"bundle": "x", "clusters": {"0": {"merged_into": 1}, "1": {"merged_into": 0}}}',
    ],
)
def test_a_damaged_file_is_put_aside(
    bundle: Bundle, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / f"{bundle.digest}.json"
    file.write_text(content)
    clusters = Clusters(bundle, tmp_path)
    assert clusters.appearance.names[0] == "red"
    assert file.with_suffix(".damaged").read_text() == content
    patch(clusters, 0, name="brick")
    assert json.loads(file.read_text())["clusters"] == {"0": {"name": "brick"}}
