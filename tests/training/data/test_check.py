"""Images opened once: what is remembered, what is not, and what a damaged memory does."""

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from models.io.samples import Decoded, ImageError
from training.data.check import Checked, check
from training.data.image_index import ImageIndex, Looked, Stamp
from training.data.images import Bands, Found

QUIET = Console(quiet=True)
seen: list[str] = []


def reader(path: Path, bands: Bands = None) -> Decoded:
    """Notes what it is asked for; bad.png is damaged."""
    seen.append(path.name)
    if path.stem.startswith("bad"):
        raise ImageError(f"{path}: damaged")
    return Decoded(np.zeros((16, 16, 3), np.uint8), warnings=("a remark",) if path.stem == "1" else ())


@pytest.fixture
def found(tmp_path: Path) -> Found:
    paths = [tmp_path / "data" / f"{name}.png" for name in ("1", "2", "bad", "\udcff")]
    (tmp_path / "data").mkdir()
    for path in paths:
        path.write_bytes(path.stem.encode(errors="surrogateescape"))
    return Found(paths, read=reader)


def looked(found: Found, index: Path | None) -> tuple[Checked, list[str]]:
    seen.clear()
    return check(found, QUIET, index), sorted(seen)


def test_what_did_not_change_is_not_opened_again(found: Found, tmp_path: Path) -> None:
    index = tmp_path / "run" / "images.sqlite3"
    first, opened = looked(found, index)
    assert opened == ["1.png", "2.png", "bad.png", "\udcff.png"]
    assert list(first.paths) == [path for path in found.paths if path.stem != "bad"]
    assert first.sizes.tolist() == [1, 1, 1]
    again, opened = looked(found, index)
    assert opened == []
    assert (again.paths, again.skipped, again.sizes.tolist()) == (first.paths, first.skipped, [1, 1, 1])
    assert [(one.path.name, one.reason) for one in again.skipped] == [("bad.png", "damaged")]
    found.paths[0].write_bytes(b"longer")
    os.utime(found.paths[1], ns=(0, 1))
    assert looked(found, index)[1] == ["1.png", "2.png"]
    assert looked(found, None)[1] == ["1.png", "2.png", "bad.png", "\udcff.png"]


def test_what_is_read_in_another_way_is_opened_again(found: Found, tmp_path: Path) -> None:
    index = tmp_path / "images.sqlite3"
    looked(found, index)
    assert len(looked(Found(found.paths, read=reader, bands=(1,)), index)[1]) == 4


def test_what_the_disk_refuses_is_not_remembered(found: Found, tmp_path: Path) -> None:
    index = tmp_path / "images.sqlite3"
    os.rename(found.paths[0], tmp_path / "away")
    first, _ = looked(found, index)
    assert [(one.path.name, one.reason) for one in first.skipped][:1] == [("1.png", "no such file or directory")]
    os.rename(tmp_path / "away", found.paths[0])
    again, opened = looked(found, index)
    assert (len(again.paths), opened) == (3, ["1.png"])


@pytest.mark.parametrize("damage", ["text", "torn", "folder", "locked"])
def test_a_memory_that_cannot_be_used_costs_time_alone(found: Found, tmp_path: Path, damage: str) -> None:
    index = tmp_path / "images.sqlite3"
    whole, _ = looked(found, index)
    other = None
    if damage == "text":
        index.write_text("no database at all, " * 500)
    elif damage == "torn":
        index.write_bytes(index.read_bytes()[:4096] + b"\xff" * 8192)
    elif damage == "folder":
        index.unlink()
        index.mkdir()
    else:
        other = sqlite3.connect(index)
        other.execute("BEGIN EXCLUSIVE")
    again, _ = looked(found, index)
    if other is not None:
        other.close()
    assert (again.paths, again.skipped) == (whole.paths, whole.skipped)
    if damage in ("text", "torn"):
        looked(found, index)
        assert looked(found, index)[1] == []


def test_an_index_that_fails_half_way_forgets_and_goes_on(tmp_path: Path) -> None:
    with ImageIndex(tmp_path / "i", "key") as index:
        index.remember([("a", Stamp(1, 2), Looked(None, ("one", "two")))])
        assert index.known({"a": Stamp(1, 2), "b": Stamp(1, 2)}) == {"a": Looked(None, ("one", "two"))}
        assert index.known({"a": Stamp(1, 3)}) == {}
        assert index._database is not None
        index._database.execute("DROP TABLE seen")
        assert index.known({"a": Stamp(1, 2)}) == {}
        index.remember([("a", Stamp(1, 2), Looked(None))])


def test_a_broken_file_is_found_among_real_ones(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:50])
    found = check(Found([tmp_path / "a.png", tmp_path / "b.png"]), QUIET)
    assert [path.name for path in found.paths] == ["a.png"]
    assert str(tmp_path) not in found.skipped[0].reason
