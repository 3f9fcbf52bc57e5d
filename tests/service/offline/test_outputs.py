"""What answers are called, where they lie, and what a full disk does."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.formats import registry
from service.offline import outputs
from service.offline.outputs import DiskFull, Outputs
from service.offline.sources import Finder, Item


def items(*paths: Path) -> list[Item]:
    finder = Finder()
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        finder.path(path)
    return finder.found().items


def stems(folder: Path, *names: str, known: dict[str, str] | None = None) -> list[str]:
    return Outputs(folder / "out", ["png"]).stems(items(*(folder / name for name in names)), known or {})


def test_every_format_has_its_own_ending() -> None:
    ends = [registry.suffix(name) for name in registry.names()]
    assert len(set(ends)) == len(ends)
    assert not any(end.endswith(".bin") for end in ends)
    assert [registry.suffix(name) for name in ("png", "json", "overlay", "color", "npy")] == [
        ".png", ".json", ".overlay.jpg", ".color.png", ".npy"
    ]  # fmt: skip


def test_answers_are_called_as_their_image(tmp_path: Path) -> None:
    assert stems(tmp_path, "a.jpg", "b/c.d.tif", "e") == ["a", "b/c.d", "e"]


def test_images_that_differ_in_their_suffix_or_in_capitals_are_told_apart(tmp_path: Path) -> None:
    assert stems(tmp_path, "a.jpg", "a.png", "b.jpg") == ["a.jpg", "a.png", "b"]
    assert stems(tmp_path, "A.jpg", "a.JPG") == ["A.jpg", "a.JPG-2"]
    both = Outputs(tmp_path / "o", ["png", "color"])
    assert both.stems(items(tmp_path / "x.jpg", tmp_path / "x.color.jpg"), {}) == ["x", "x.color.jpg"]


def test_a_name_that_was_given_stays(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert stems(tmp_path, "a.jpg", "a.png", known={str(tmp_path.resolve() / "a.jpg"): "a"}) == ["a", "a.png"]


def test_no_answer_is_written_over_an_image(tmp_path: Path) -> None:
    found = items(tmp_path / "a.png", tmp_path / "b.jpg")
    assert Outputs(tmp_path, ["png"]).stems(found, {}) == ["a.png", "b"]


def test_files_are_there_as_a_whole(tmp_path: Path) -> None:
    out = Outputs(tmp_path, ["png", "overlay"])
    out.begin()
    out.write("deep/er/a", {"png": b"1", "overlay": b"2"})
    assert out.files("deep/er/a") == ["deep/er/a.png", "deep/er/a.overlay.jpg"]
    assert [(tmp_path / file).read_bytes() for file in out.files("deep/er/a")] == [b"1", b"2"]
    out.end()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.overlay.jpg", "a.png"]


def test_a_full_disk_is_told_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Outputs(tmp_path, ["png"])
    out.begin()

    def refuse(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(DiskFull, match="make room"):
            out.write("a", {"png": b"1"})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    usage: Any = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskFull):
        out.check_room()
