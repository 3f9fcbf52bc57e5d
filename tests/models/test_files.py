"""Files written as a whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from models.files import write_atomically


@pytest.mark.parametrize("durable", [False, True])
def test_the_new_file_takes_the_old_ones_place(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "names.json"
    for text in (b"old", b"new"):
        write_atomically(file, lambda out, text=text: out.write(text), durable=durable)  # type: ignore[misc]
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
