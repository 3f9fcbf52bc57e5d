"""Names as version 0.3 kept them: all of them are taken up, and none of its files is lost."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from service.repository.change_store import ChangeStore
from service.repository.cluster_names import Clusters
from tests.service.variants import variant


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def write(bundle: Bundle, state: Path, changed: Any, age_s: float = 0) -> Path:
    """What 0.3 wrote of a bundle."""
    folder = state / "clusters"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{bundle.digest}.json"
    file.write_text(changed if isinstance(changed, str) else json.dumps({"bundle": bundle.ref, "clusters": changed}))
    image, labels = bundle.golden
    np.savez_compressed(file.with_suffix(".npz"), centroids=bundle.centroids, image=image, labels=labels)
    time = file.stat().st_mtime - age_s
    os.utime(file, (time, time))
    return file


def opened(bundle: Bundle, state: Path) -> Clusters:
    store = ChangeStore(state)
    clusters = Clusters(bundle, store)

    async def look() -> None:
        await clusters.refresh(5)

    asyncio.run(look())
    store.close()
    return clusters


def test_what_it_kept_is_taken_up_once_and_its_files_stay(bundle: Bundle, tmp_path: Path) -> None:
    file = write(
        bundle, tmp_path, {"1": {"name": "grass", "color": "#00ff00", "hidden": True}, "2": {"merged_into": 1}}
    )
    before = file.read_bytes()
    for _ in range(2):
        clusters = opened(bundle, tmp_path)
        assert clusters.known
        assert clusters.style.names == ("red", "grass", "blue", "white", "black")
        assert clusters.style.colors[1].tolist() == [0, 255, 0]
        assert clusters.style.hidden == {1}
        assert clusters.style.becomes.tolist() == [0, 1, 1, 3, 4]
    assert file.read_bytes() == before
    file.write_text("{}")  # what becomes of the file later is nobody's matter
    assert opened(bundle, tmp_path).style.names[1] == "grass"


def test_the_one_written_last_is_what_follows(bundle: Bundle, tmp_path: Path) -> None:
    newer = variant(bundle, tmp_path / "newer")
    write(newer, tmp_path, {"1": {"name": "last"}})
    write(bundle, tmp_path, {"1": {"name": "first"}}, age_s=60)
    store = ChangeStore(tmp_path)
    past = asyncio.run(Clusters(variant(bundle, tmp_path / "third", notice="a third"), store).before())
    store.close()
    assert past is not None
    assert past.ref == newer.ref
    assert past.record[1, "name"].value == "last"
    np.testing.assert_array_equal(past.fingerprint.golden.image, newer.golden.image)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"bundle": "x", "clusters": {"0": {"nom": "far"}}}'])
def test_a_damaged_file_is_moved_aside_and_the_others_are_taken_up(
    bundle: Bundle, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = variant(bundle, tmp_path / "other")
    write(other, tmp_path, {"1": {"name": "grass"}})
    file = write(bundle, tmp_path, content)
    assert opened(bundle, tmp_path).style.names[0] == "red"
    aside = file.with_name(f"{file.name}.damaged-1")
    assert aside.read_text() == content
    assert "is damaged" in caplog.text
    assert aside.name in caplog.text
    assert opened(other, tmp_path).style.names[1] == "grass"


def test_what_cannot_be_is_passed_over_and_the_rest_is_taken_up(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    circle = {"0": {"merged_into": 1}, "1": {"merged_into": 0, "name": "grass"}, "9": {"name": "far"}}
    write(bundle, tmp_path, circle)
    clusters = opened(bundle, tmp_path)
    assert clusters.style.names[1] == "grass"
    assert len(set(clusters.style.becomes.tolist())) == 4
    assert "circle" in caplog.text
    assert "no cluster 9" in caplog.text


def test_names_that_were_allowed_lose_what_is_not_seen_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    write(bundle, tmp_path, {"0": {"name": "road\u202e"}, "1": {"name": "\u200b", "color": "#00ff00"}})
    clusters = opened(bundle, tmp_path)
    assert clusters.style.names[:2] == ("road", "green")
    assert clusters.style.colors[1].tolist() == [0, 255, 0]


def test_where_nothing_can_be_written_they_are_shown_all_the_same(bundle: Bundle, tmp_path: Path) -> None:
    write(bundle, tmp_path, {"1": {"name": "grass"}})
    (tmp_path / "state.sqlite3").mkdir()  # in the way, as a read-only folder is
    clusters = opened(bundle, tmp_path)
    assert clusters.style.names[1] == "grass"
    assert not clusters.persistent
