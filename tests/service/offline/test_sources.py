"""What people name, and which images that is: each once, in order, by the name that its answers get."""

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from models.errors import UsageError
from service.offline import sources
from service.offline.sources import Finder, Found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/img10.jpg", "photos/img9.jpg", "photos/deep/er/a.TIF", "photos/notes.txt", "other/img9.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(name.encode())
    with zipfile.ZipFile("pack.zip", "w") as archive:
        archive.writestr("in/b.png", b"packed")
        archive.writestr("in/readme.md", b"-")
    return tmp_path


def find(*words: str, **how: object) -> Found:
    with sources.find(words, **how) as found:  # type: ignore[arg-type]
        for item in found.items:
            assert len(item.read()) == item.size
        return found


def names(*words: str) -> list[str]:
    return [item.name for item in find(*words).items]


def test_a_folder_is_searched_to_its_bottom_in_natural_order(here: Path) -> None:
    found = find("photos")
    assert [item.name for item in found.items] == ["deep/er/a.TIF", "img9.jpg", "img10.jpg"]
    assert found.left_out == {".txt": 1}
    assert found.walked == [here / "photos"]


def test_of_several_folders_the_names_begin_with_theirs(here: Path) -> None:
    assert names("photos", "other") == [
        "photos/deep/er/a.TIF",
        "photos/img9.jpg",
        "photos/img10.jpg",
        "other/img9.jpg",
    ]


def test_files_stand_below_the_folder_they_share(here: Path) -> None:
    assert names("photos/img9.jpg") == ["img9.jpg"]
    assert names("photos/img9.jpg", "other/img9.jpg") == ["photos/img9.jpg", "other/img9.jpg"]
    assert names("photos/notes.txt") == ["notes.txt"]  # somebody named it: whether it is an image, its bytes say


def test_a_pattern_in_quotes_finds_what_the_shell_would(here: Path) -> None:
    assert names("photos/*.jpg") == names("photos/img9.jpg", "photos/img10.jpg") == ["img9.jpg", "img10.jpg"]
    assert sorted(names("**/*.jpg")) == ["other/img9.jpg", "photos/img10.jpg", "photos/img9.jpg"]
    assert names("photos/*") == ["deep/er/a.TIF", "img9.jpg", "img10.jpg"]


def test_an_archive_is_read_member_by_member(here: Path) -> None:
    with sources.find(["pack.zip"]) as found:
        (item,) = found.items
        assert (item.name, item.read(), item.path) == ("in/b.png", b"packed", None)
        assert found.left_out == {".md": 1}
    assert names("pack.zip", "photos/*9.jpg") == ["pack/in/b.png", "photos/img9.jpg"]


def test_a_list_names_paths_a_line_each_or_with_a_nul_behind(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list.txt").write_text("photos/img9.jpg\n\nphotos/img10.jpg\npack.zip\n")
    assert names("@list.txt") == ["img9.jpg", "img10.jpg", "in/b.png"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"photos/img9.jpg\0photos/deep\0")))
    assert names("-") == ["img9.jpg", "er/a.TIF"]
    Path("list.txt").write_text("photos/img8.jpg\n")
    with pytest.raises(UsageError, match=r"img8\.jpg' is in list\.txt, and is not there"):
        names("@list.txt")


def test_a_file_named_in_several_ways_is_taken_once(here: Path) -> None:
    os.symlink("photos", "link")
    once = find("photos", "photos/img9.jpg", "./photos/../photos", "link", "link/img9.jpg", "photos/*.jpg")
    assert len(once.items) == 3
    assert len(find("pack.zip", "./pack.zip").items) == 1


def test_what_is_not_there_is_said_before_anything_is_done(here: Path) -> None:
    for word in ("nowhere", "photos/*.bmp", "@nowhere"):
        with pytest.raises(UsageError, match=r"there|fits nothing|paths"):
            names(word)


def test_nothing_is_found_where_the_answers_go(here: Path) -> None:
    assert len(find(".", without=[here / "photos"]).items) == 1
    assert len(find("**/*.jpg", without=[here / "photos"]).items) == 1


def test_no_link_leads_out_of_the_folder_that_is_open(here: Path) -> None:
    os.symlink(here / "other", here / "photos" / "out")
    os.symlink(here / "other" / "img9.jpg", here / "photos" / "out.jpg")
    finder = Finder(inside=here / "photos")
    finder.folder(here / "photos")
    found = finder.found()
    assert len(found.items) == 3
    assert {str(one.path.relative_to(here)) for one in found.unusable} == {"photos/out/img9.jpg", "photos/out.jpg"}


def test_a_bucket_is_read_by_its_url(here: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for name in ("photos/a/img10.png", "photos/a/img9.png", "photos/b.JPG", "photos/notes.txt"):
        files.pipe(f"/bucket/{name}", name.encode())
    found = find("memory://bucket/photos")
    assert [item.name for item in found.items] == ["a/img9.png", "a/img10.png", "b.JPG"]
    assert [item.read() for item in found.items][2] == b"photos/b.JPG"
    assert found.items[0].source == "memory://bucket/photos/a/img9.png"
    assert found.items[0].path is None
    assert found.left_out == {".txt": 1}
    assert names("memory://bucket/photos/a/*.png", "memory://bucket/photos/a") == ["img9.png", "img10.png"]
    assert names("memory://bucket/photos/notes.txt") == ["notes.txt"]
    assert names("memory://bucket/photos", "photos/img9.jpg") == ["a/img9.png", "a/img10.png", "b.JPG", "img9.jpg"]
    with pytest.raises(UsageError, match="holds nothing"):
        names("memory://bucket/elsewhere")
    with pytest.raises(UsageError, match="of URLs those of buckets are read"):
        names("https://example.com/a.jpg")
