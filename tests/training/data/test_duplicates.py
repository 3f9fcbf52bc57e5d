"""Copies among the images: by their bytes, however they are called."""

from pathlib import Path

import pytest

from training.data import duplicates as module
from training.data.duplicates import duplicates
from training.data.images import Images


def images(folder: Path, **contents: bytes) -> Images:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return Images(folder, [folder / name for name in contents])


def test_equal_bytes_are_told_and_equal_sizes_are_not(tmp_path: Path) -> None:
    base = bytes(range(256)) * 64
    early = b"x" + base[1:]  # differs before the pieces that are looked at first
    late = base[:-1] + b"x"
    found = images(tmp_path, a=base, b=early, c=base, d=late, e=b"short", f=early, g=b"shirt", h=base)
    assert duplicates(found) == [["a", "c", "h"], ["b", "f"]]


def test_a_file_that_is_gone_is_no_copy(tmp_path: Path) -> None:
    found = images(tmp_path, a=b"1", b=b"1", c=b"1")
    assert found.sizes.tolist() == [1, 1, 1]
    (tmp_path / "b").unlink()
    assert duplicates(found) == [["a", "c"]]
    assert duplicates(images(tmp_path, a=b"")) == []


def test_of_many_files_of_one_size_some_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_OPENED", 4)
    assert duplicates(images(tmp_path, **{f"f{i}": b"same" for i in range(8)})) == [["f0", "f2", "f4", "f6"]]
