"""Names and colors that people give: they survive, they never lead in circles, they never meet other clusters."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from models import bundle as bundles
from models.bundle import Bundle
from service.errors import BadOption, NotFound, NotKept
from service.repository.change_store import ChangeStore, PreviousNames
from service.repository.cluster_changes import Change
from service.repository.cluster_matching import Match, Pair
from service.repository.cluster_names import Clusters, ClusterState
from tests.service.variants import variant


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


_stores: list[ChangeStore] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _stores:
        _stores.pop().close()


def opened(bundle: Bundle, folder: Path) -> Clusters:
    """As a server of its own on the folder sees them."""
    _stores.append(ChangeStore(folder))
    clusters = Clusters(bundle, _stores[-1])
    asyncio.run(clusters.refresh(5))
    return clusters


def patch(clusters: Clusters, cluster: int, **what: object) -> None:
    asyncio.run(clusters.patch(cluster, Change.model_validate(what)))


def test_changes_survive_a_restart(bundle: Bundle, tmp_path: Path) -> None:
    clusters = opened(bundle, tmp_path)
    patch(clusters, 1, name="  grass ", color="#00ff00")
    patch(clusters, 1, hidden=True)
    patch(clusters, 2, merged_into=1)
    again = opened(bundle, tmp_path)
    assert again.style.names == ("red", "grass", "blue", "white", "black")
    assert again.style.colors[1].tolist() == [0, 255, 0]
    assert again.style.hidden == {1}
    assert again.style.becomes.tolist() == [0, 1, 1, 3, 4]
    assert {f.name for f in tmp_path.iterdir()} == {"state.sqlite3"}


def test_null_takes_a_change_back(bundle: Bundle, tmp_path: Path) -> None:
    clusters = opened(bundle, tmp_path)
    patch(clusters, 1, name="grass", merged_into=0)
    patch(clusters, 1, name=None, merged_into=None)
    assert clusters.style.names[1] == "green"
    assert clusters.style.becomes.tolist() == [0, 1, 2, 3, 4]


def test_another_bundle_starts_with_its_own_names(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    patch(opened(bundle, tmp_path / "state"), 1, name="grass")
    other = opened(Bundle.load(make_bundle("other")), tmp_path / "state")
    assert other.style.names[1] == "green"


def test_merges_follow_each_other_and_never_close_a_circle(bundle: Bundle, tmp_path: Path) -> None:
    clusters = opened(bundle, tmp_path)
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


def test_merges_by_hand_come_before_the_hierarchy(bundle: Bundle, tmp_path: Path) -> None:
    clusters = opened(bundle, tmp_path)
    patch(clusters, 2, merged_into=0)
    assert clusters.table(None).tolist() == [0, 1, 0, 3, 4]
    assert clusters.table(3).tolist() == [3, 1, 3, 3, 4]
    for k in clusters.levels:
        assert len(set(clusters.table(k).tolist())) <= k
    with pytest.raises(BadOption, match="2 to 5"):
        clusters.table(9)


def test_levels_that_may_join_what_does_not_belong_together_are_told_of(bundle: Bundle, tmp_path: Path) -> None:
    clusters = opened(bundle, tmp_path)  # written without a word on its tree
    assert [clusters.doubt(k) is None for k in (None, 5, 4, 2)] == [True, True, False, False]
    assert "tessera remeasure" in str(clusters.doubt(4))
    merges = [
        {**merge.model_dump(mode="json"), "height": height}
        for merge, height in zip(bundle.manifest.hierarchy, (0.2, 0.5, 0.53), strict=True)
    ]
    newer = bundles.rewrite(bundle, {"hierarchy": merges, "hierarchy_by": "belonging"}, tmp_path / "newer")
    clusters = opened(newer, tmp_path)
    assert [clusters.doubt(k) is None for k in (None, 5, 4, 3, 2)] == [True, True, True, True, False]
    assert "height 0.53" in str(clusters.doubt(2))


def test_neighbors_are_the_nearest_three_by_cosine(bundle: Bundle, tmp_path: Path) -> None:
    clusters = opened(bundle, tmp_path)
    cosines = bundle.centroids @ bundle.centroids.T
    for i, near in enumerate(clusters.neighbors):
        assert len(near) == 3
        assert i not in [j for j, _ in near]
        others = sorted((cosines[i, j] for j in range(5) if j != i), reverse=True)
        np.testing.assert_allclose([c for _, c in near], others[:3], atol=1e-4)


def refused(clusters: Clusters, cluster: int, **what: object) -> str:
    """Why a change cannot be kept; it changed nothing then."""
    before = clusters.state
    with pytest.raises(NotKept, match="TESSERA_STATE") as refusal:
        patch(clusters, cluster, **what)
    assert clusters.state is before
    assert not clusters.persistent
    return str(refusal.value)


def test_a_folder_that_cannot_be_written_keeps_nothing_and_says_so(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    clusters = opened(bundle, tmp_path / "file" / "state")
    assert not clusters.persistent
    assert "TESSERA_STATE" in caplog.text
    assert "cluster 0 is as it was" in refused(clusters, 0, name="brick")
    (tmp_path / "file").unlink()
    patch(clusters, 0, name="brick")
    assert clusters.persistent
    assert opened(bundle, tmp_path / "file" / "state").style.names[0] == "brick"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_what_is_kept_in_a_folder_that_became_read_only_is_shown(bundle: Bundle, tmp_path: Path) -> None:
    patch(opened(bundle, tmp_path), 0, name="brick")
    tmp_path.chmod(0o500)
    clusters = opened(bundle, tmp_path)
    assert clusters.style.names[0] == "brick"
    refused(clusters, 1, name="grass")
    tmp_path.chmod(0o700)
    patch(clusters, 1, name="grass")
    assert opened(bundle, tmp_path).style.names[:2] == ("brick", "grass")


def test_two_servers_on_one_folder_lose_none_of_each_others_changes(bundle: Bundle, tmp_path: Path) -> None:
    one, other = opened(bundle, tmp_path), opened(bundle, tmp_path)
    patch(one, 1, name="grass")
    patch(other, 1, color="#00ff00")
    patch(one, 2, merged_into=1)
    patch(other, 3, hidden=True)
    with pytest.raises(BadOption, match="1 → 2 → 1 is a circle"):  # of which `other` was told nothing
        patch(other, 1, merged_into=2)
    patch(one, 1, name=None)
    for clusters in (one, other, opened(bundle, tmp_path)):
        asyncio.run(clusters.refresh())
        assert clusters.style.names[1] == "green"
        assert clusters.style.colors[1].tolist() == [0, 255, 0]
        assert clusters.style.becomes.tolist() == [0, 1, 1, 3, 4]
        assert clusters.style.hidden == {3}


def test_a_look_that_finds_nothing_new_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    clusters = opened(bundle, tmp_path)
    patch(clusters, 1, name="grass")
    before = clusters.state
    assert asyncio.run(clusters.refresh()) is before


def test_what_is_shown_is_put_back_into_a_store_that_was_lost(bundle: Bundle, tmp_path: Path) -> None:
    one, other = opened(bundle, tmp_path), opened(bundle, tmp_path)
    patch(one, 1, name="grass")
    asyncio.run(other.refresh())
    (tmp_path / "state.sqlite3").unlink()
    patch(other, 2, name="lake")
    asyncio.run(one.refresh())
    for clusters in (one, other, opened(bundle, tmp_path)):
        assert clusters.style.names[1:3] == ("grass", "lake")


def test_an_older_copy_of_the_store_loses_nothing_that_is_shown(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite3"
    clusters = opened(bundle, tmp_path)
    patch(clusters, 1, name="grass")
    copy = file.read_bytes()
    patch(clusters, 1, name="meadow")
    file.write_bytes(copy)
    asyncio.run(clusters.refresh())
    assert clusters.style.names[1] == "meadow"
    assert opened(bundle, tmp_path).style.names[1] == "meadow"


def test_a_precondition_that_refuses_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    clusters = opened(bundle, tmp_path)
    patch(opened(bundle, tmp_path), 1, name="grass")
    seen = []

    def refuse(state: ClusterState) -> None:
        seen.append(state.style.names[1])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(clusters.patch(1, Change(name="lake"), refuse))
    assert seen == ["grass"]  # as it is kept, not as it was last looked at
    assert opened(bundle, tmp_path).style.names[1] == "grass"
    assert clusters.persistent


def matched(**pairs: int) -> Match:
    """`matched(_1=4)`: old cluster 1 is new cluster 4."""
    return Match("overlap", {int(old[1:]): Pair(int(old[1:]), new, 1.0) for old, new in pairs.items()})


def test_changes_follow_the_matched_clusters(bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    old = opened(bundle, tmp_path)
    patch(old, 1, name="grass", color="#00ff00", hidden=True)
    patch(old, 2, merged_into=1)
    patch(old, 3, name="sky")
    patch(old, 0, merged_into=3)
    new = opened(Bundle.load(make_bundle("next")), tmp_path)
    followed = asyncio.run(new.follow(old.past, matched(_0=0, _1=4, _2=3)))
    assert new.style.names == ("red", "green", "blue", "white", "grass")
    assert new.style.colors[4].tolist() == [0, 255, 0]
    assert new.style.hidden == {4}
    assert new.style.becomes.tolist() == [0, 1, 2, 4, 4]
    assert sorted(pair.new for pair in followed.carried) == [0, 3, 4]
    assert [(lost.cluster, lost.name) for lost in followed.lost] == [(0, "cluster 0"), (3, "sky")]
    again = opened(Bundle.load(tmp_path / "next"), tmp_path)
    assert again.known
    assert again.style.names[4] == "grass"


def test_of_two_bundles_what_was_said_last_stays(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    new = opened(Bundle.load(make_bundle("next")), tmp_path)
    old = opened(bundle, tmp_path)
    patch(new, 0, name="early")
    patch(new, 2, name="nobody said more")
    patch(old, 1, name="later", merged_into=4)
    patch(old, 3, name="sky")
    patch(old, 3, name=None)
    patch(new, 4, name="latest")
    asyncio.run(new.follow(old.past, matched(_1=0, _4=1, _2=2, _3=3)))
    assert new.style.names == ("later", "green", "nobody said more", "white", "latest")
    assert new.style.becomes.tolist() == [1, 1, 2, 3, 4]
    patch(new, 0, name="renamed", merged_into=None)
    asyncio.run(new.follow(old.past, matched(_1=0, _4=1)))  # once more: another server takes the new bundle later
    assert new.style.names[0] == "renamed"
    assert new.style.becomes.tolist() == [0, 1, 2, 3, 4]
    patch(old, 1, name="and once more")
    asyncio.run(new.follow(old.past, matched(_1=0, _4=1)))
    assert new.style.names[0] == "and once more"


def test_of_merges_that_close_a_circle_the_older_one_is_given_up(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    new = opened(Bundle.load(make_bundle("next")), tmp_path)
    old = opened(bundle, tmp_path)
    patch(new, 3, merged_into=0)
    patch(old, 0, merged_into=1)
    patch(old, 1, merged_into=2)
    asyncio.run(new.follow(old.past, matched(_0=0, _1=1, _2=3)))
    assert new.style.becomes.tolist() == [3, 3, 2, 3, 4]
    patch(new, 1, merged_into=None)
    assert new.style.becomes.tolist() == [1, 1, 2, 3, 4]  # what was given up does not come back


def test_what_follows_is_shown_until_it_can_be_kept(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    old = opened(bundle, tmp_path / "old")
    patch(old, 1, name="grass")
    (tmp_path / "new").write_text("in the way")
    new = opened(Bundle.load(make_bundle("next")), tmp_path / "new")
    report = asyncio.run(new.follow(old.past, matched(_1=4)))
    assert [pair.new for pair in report.carried] == [4]
    assert new.style.names[4] == "grass"
    assert not new.persistent
    refused(new, 0, name="brick")
    (tmp_path / "new").unlink()
    patch(new, 0, name="brick")
    assert new.persistent
    assert opened(Bundle.load(tmp_path / "next"), tmp_path / "new").style.names[4] == "grass"


def before(clusters: Clusters) -> PreviousNames | None:
    return asyncio.run(clusters.before())


def test_the_last_bundle_of_this_name_is_found_after_a_restart_whatever_the_clock_says(
    bundle: Bundle, make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    assert before(opened(bundle, state)) is None
    newer = variant(bundle, tmp_path / "newer")
    other = Bundle.load(make_bundle("other"))
    now = time.time()
    for jump, (name, of) in enumerate({"first": bundle, "last": newer, "no kin": other}.items()):
        monkeypatch.setattr(time, "time", lambda back=jump: now - 86400 * back)
        patch(opened(of, state), 1, name=name)
    newest = opened(variant(bundle, tmp_path / "third", notice="a third"), state)
    past = before(newest)
    assert past is not None
    assert not newest.known
    assert past.ref == newer.ref
    assert past.record[1, "name"].value == "last"
    np.testing.assert_array_equal(past.fingerprint.centroids, newer.centroids)
    np.testing.assert_array_equal(past.fingerprint.golden.labels, newer.golden.labels)


@pytest.mark.parametrize("content", [None, b"", b"PK damaged"])
def test_names_without_a_fingerprint_cannot_follow(
    bundle: Bundle, tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    patch(opened(bundle, state), 1, name="grass")
    with closing(sqlite3.connect(state / "state.sqlite3")) as database, database:
        database.execute("UPDATE bundles SET fingerprint = ?", (content,))
    assert before(opened(variant(bundle, tmp_path / "newer"), state)) is None
    assert "cannot follow" in caplog.text
