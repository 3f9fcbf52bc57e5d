"""Names and colors that people give: they survive, they never lead in circles, they never meet other clusters."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle
from service.errors import BadOption, NotFound
from service.repository.cluster_matching import Match, Pair
from service.repository.cluster_names import Change, Clusters
from tests.service.variants import variant


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
    assert again.style.names == ("red", "grass", "blue", "white", "black")
    assert again.style.colors[1].tolist() == [0, 255, 0]
    assert again.style.hidden == {1}
    assert again.style.becomes.tolist() == [0, 1, 1, 3, 4]
    assert {f.name for f in tmp_path.iterdir()} == {f"{bundle.digest}.json", f"{bundle.digest}.npz"}


def test_null_takes_a_change_back(bundle: Bundle, tmp_path: Path) -> None:
    clusters = Clusters(bundle, tmp_path)
    patch(clusters, 1, name="grass", merged_into=0)
    patch(clusters, 1, name=None, merged_into=None)
    assert clusters.style.names[1] == "green"
    assert clusters.style.becomes.tolist() == [0, 1, 2, 3, 4]


def test_another_bundle_starts_with_its_own_names(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    patch(Clusters(bundle, tmp_path / "state"), 1, name="grass")
    other = Clusters(Bundle.load(make_bundle("other")), tmp_path / "state")
    assert other.style.names[1] == "green"


def test_merges_follow_each_other_and_never_close_a_circle(bundle: Bundle) -> None:
    clusters = Clusters(bundle, None)
    patch(clusters, 0, merged_into=1)
    patch(clusters, 1, merged_into=2)
    assert clusters.style.becomes.tolist() == [2, 2, 2, 3, 4]
    for cluster, target in ((2, 0), (2, 1), (3, 3)):
        with pytest.raises(BadOption, match="circle"):
            patch(clusters, cluster, merged_into=target)
    with pytest.raises(BadOption, match="0 to 4"):
        patch(clusters, 3, merged_into=5)
    with pytest.raises(NotFound):
        patch(clusters, 5, name="x")
    assert clusters.style.becomes.tolist() == [2, 2, 2, 3, 4]  # a refusal changes nothing


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
    assert clusters.style.names[0] == "brick"


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
    assert clusters.style.names[0] == "brick"
    assert not clusters.persistent
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


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
    assert clusters.style.names[0] == "red"
    assert file.with_suffix(".damaged").read_text() == content
    patch(clusters, 0, name="brick")
    assert json.loads(file.read_text())["clusters"] == {"0": {"name": "brick"}}


def matched(**pairs: int) -> Match:
    """`matched(_1=4)`: old cluster 1 is new cluster 4."""
    return Match("overlap", {int(old[1:]): Pair(int(old[1:]), new, 1.0) for old, new in pairs.items()})


def test_changes_follow_the_matched_clusters(bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    old = Clusters(bundle, tmp_path)
    patch(old, 1, name="grass", color="#00ff00", hidden=True)
    patch(old, 2, merged_into=1)
    patch(old, 3, name="sky")
    patch(old, 0, merged_into=3)
    new = Clusters(Bundle.load(make_bundle("next")), tmp_path)
    followed = asyncio.run(new.follow(old.past, matched(_0=0, _1=4, _2=3)))
    assert new.style.names == ("red", "green", "blue", "white", "grass")
    assert new.style.colors[4].tolist() == [0, 255, 0]
    assert new.style.hidden == {4}
    assert new.style.becomes.tolist() == [0, 1, 2, 4, 4]
    assert sorted(pair.new for pair in followed.carried) == [0, 3, 4]
    assert [(lost.cluster, lost.name) for lost in followed.lost] == [(3, "sky"), (0, "cluster 0")]
    again = Clusters(Bundle.load(tmp_path / "next"), tmp_path)
    assert again.known
    assert again.style.names[4] == "grass"


def test_what_was_kept_of_a_bundle_stays_where_nothing_follows(bundle: Bundle, tmp_path: Path) -> None:
    clusters, past = Clusters(bundle, tmp_path), Clusters(bundle, None)
    patch(clusters, 0, name="brick", merged_into=1)
    patch(clusters, 2, name="stale")
    patch(past, 1, merged_into=4)
    asyncio.run(clusters.follow(past.past, matched(_1=1, _4=0, _2=2)))
    assert clusters.style.names == ("red", "green", "blue", "white", "black")  # matched: as it was seen last
    assert clusters.style.becomes.tolist() == [0, 0, 2, 3, 4]
    patch(clusters, 3, name="snow")
    asyncio.run(clusters.follow(past.past, matched(_1=1)))
    assert clusters.style.names[3] == "snow"


def test_a_merge_that_follows_never_closes_a_circle(bundle: Bundle) -> None:
    clusters, past = Clusters(bundle, None), Clusters(bundle, None)
    patch(clusters, 3, merged_into=0)
    patch(past, 0, merged_into=1)
    patch(past, 1, merged_into=2)
    asyncio.run(clusters.follow(past.past, matched(_0=0, _1=1, _2=3)))
    becomes = clusters.style.becomes
    assert (becomes[becomes] == becomes).all()


def test_the_last_bundle_of_this_name_is_found_after_a_restart(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert Clusters(bundle, state).before() is None
    assert Clusters(bundle, None).before() is None
    newer = variant(bundle, tmp_path / "newer")
    other = Bundle.load(make_bundle("other"))
    for number, (name, of) in enumerate({"first": bundle, "last": newer, "no kin": other}.items()):
        clusters = Clusters(of, state)
        patch(clusters, 1, name=name)
        now = time.time() + number
        os.utime(state / f"{of.digest}.json", (now, now))
    newest = Clusters(variant(bundle, tmp_path / "third", notice="a third"), state)
    past = newest.before()
    assert past is not None
    assert not newest.known
    assert past.ref == newer.ref
    assert past.changes[1].name == "last"
    np.testing.assert_array_equal(past.fingerprint.centroids, newer.centroids)
    np.testing.assert_array_equal(past.fingerprint.golden.labels, newer.golden.labels)


@pytest.mark.parametrize("content", [None, b"", b"PK damaged"])
def test_names_without_a_portrait_cannot_follow(
    bundle: Bundle, tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    patch(Clusters(bundle, state), 1, name="grass")
    fingerprint = state / f"{bundle.digest}.npz"
    fingerprint.unlink() if content is None else fingerprint.write_bytes(content)
    assert Clusters(variant(bundle, tmp_path / "newer"), state).before() is None
    assert "cannot follow" in caplog.text
