"""Files written as a whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from models.files import move_aside, reserve, write_atomically


def test_the_new_file_takes_the_old_ones_place(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    for text in (b"old", b"new"):
        write_atomically(file, lambda out, text=text: out.write(text))  # type: ignore[misc]
        assert file.read_bytes() == text
    assert [path.name for path in tmp_path.iterdir()] == ["names.json"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_bytes(b"old")

    def fail(out: object) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["names.json"]


def test_others_may_read_it_as_any_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a", lambda out: out.write(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_what_is_damaged_is_moved_aside_and_never_onto_another(tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite3"
    for number in (1, 2, 3):
        file.write_text(f"damaged {number}")
        (tmp_path / "state.sqlite3-journal").write_text(f"journal {number}")
        assert move_aside(file, also=("-journal", "-wal")).name == f"state.sqlite3.damaged-{number}"
    for number in (1, 2, 3):
        assert (tmp_path / f"state.sqlite3.damaged-{number}").read_text() == f"damaged {number}"
        assert (tmp_path / f"state.sqlite3.damaged-{number}-journal").read_text() == f"journal {number}"
    assert len(list(tmp_path.iterdir())) == 6
    with pytest.raises(FileNotFoundError):
        move_aside(file)


def test_room_is_had_or_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "array"
    path.touch()
    os.truncate(path, 2**20)
    reserve(path)
    assert path.stat().st_blocks * 512 >= 2**20
    os.truncate(path, 2**43)  # as long as no disk is wide, and empty
    with pytest.raises(OSError, match="No space left") as told:
        reserve(path)
    assert told.value.filename == str(path)
    assert not path.exists()
