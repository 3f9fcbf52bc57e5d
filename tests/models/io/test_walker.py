"""The walker of all commands: links, hidden files, what Tessera wrote, what is counted and not read."""

import os
import random
import re
from pathlib import Path

import pytest

from models.io.paths import Names, Paths, natural
from models.io.walker import survey, walk
from training.data.left_out import sentences


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in walk(folder)]


def test_natural_order_is_that_of_numbers_and_letters() -> None:
    """Held against the key that runs of 0.3 were sorted by: tuples, which took ten times the memory."""

    def as_tuples(name: str) -> tuple[tuple[int, int, str], ...]:
        parts = re.split(r"(\d+)", name.casefold())
        return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p)

    draw = random.Random(0)
    found = ["".join(draw.choices("aB/ ._-0019٣é\udcff", k=draw.randint(0, 9))) for _ in range(3000)]
    assert sorted(found, key=lambda name: (natural(name), name)) == sorted(
        found, key=lambda name: (as_tuples(name), name)
    )
    assert sorted(["f10", "f9", "f09"], key=natural) == ["f09", "f9", "f10"]


def test_every_suffix_that_the_decoder_knows_is_data(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.jfif", "b.JPE", "c.avif", "d.HEIC", "e.webp", "f.jp2", "g.TIFF", "h.jxl")))
    assert names(tmp_path) == ["a.jfif", "b.JPE", "c.avif", "d.HEIC", "e.webp", "f.jp2", "g.TIFF", "h.jxl"]


def test_links_are_followed_and_each_folder_is_entered_once(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    touch(data / "z" / "1.png", elsewhere / "2.png", elsewhere / "deep" / "3.png")
    (data / "a").symlink_to(data / "z")  # the real name wins, though the link is met first
    (data / "b").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(data)  # a circle
    (elsewhere / "deep" / "self").symlink_to(".")
    (data / "one.png").symlink_to(elsewhere / "2.png")
    assert names(data) == ["b/2.png", "b/deep/3.png", "one.png", "z/1.png"]
    found = survey([data, elsewhere]).files
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "data/one.png", "data/z/1.png", "elsewhere/2.png", "elsewhere/deep/3.png",
    ]  # fmt: skip


def test_what_only_looks_like_a_file_is_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = survey([tmp_path])
    assert not len(found.files)
    assert sorted((one.path.name, one.reason) for one in found.unusable) == [
        ("circle.png", "a link to nothing"),
        ("gone.png", "a link to nothing"),
        ("pipe.png", "no file: it is a pipe, a socket or a device"),
    ]


def test_a_folder_that_cannot_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.png", tmp_path / "locked" / "2.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = survey([tmp_path])
    assert [path.name for path in found.files] == ["1.png"]
    assert [(one.path.name, one.reason) for one in found.unusable] == [
        ("locked", "the folder cannot be entered: permission denied")
    ]


def test_what_is_hidden_or_of_a_system_is_no_data(tmp_path: Path) -> None:
    touch(
        tmp_path / "x.png", tmp_path / "._x.png", tmp_path / ".trash" / "x.png", tmp_path / "__MACOSX" / "x.png",
        tmp_path / "@eaDir" / "x.png", tmp_path / "$RECYCLE.BIN" / "x.png",
    )  # fmt: skip
    found = survey([tmp_path])
    assert [path.name for path in found.files] == ["x.png"]
    assert not found.left_out


def test_runs_bundles_and_the_present_out_are_never_data(tmp_path: Path) -> None:
    touch(tmp_path / "x.png", tmp_path / "sets" / "manifest.json", tmp_path / "sets" / "y.png")
    touch(tmp_path / "run" / "run.json", tmp_path / "run" / "bundle" / "exemplars" / "0.webp")
    touch(*(tmp_path / "served" / name for name in ("manifest.json", "encoder.onnx", "exemplars/0.webp")))
    touch(tmp_path / "out" / "previews" / "1.png", tmp_path / "out-plan.png", tmp_path / "run-plan.png")
    touch(tmp_path / "house" / "garden.txt", tmp_path / "house-plan.png")
    found = survey([tmp_path], without=[tmp_path / "out", tmp_path / "absent"])
    assert [path.name for path in found.files] == [
        "house-plan.png",
        "y.png",
        "x.png",
    ]  # a manifest.json alone may be anybody's
    assert sorted(path.name for path in found.outputs) == ["run", "served"]


def test_answers_are_data_only_where_their_own_folder_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "x.png", tmp_path / "labels" / "x.png", tmp_path / "labels" / ".tessera" / "journal.jsonl")
    touch(tmp_path / "noted" / "y.png", tmp_path / "noted" / ".tessera" / "other")
    assert names(tmp_path) == ["noted/y.png", "x.png"]
    assert survey([tmp_path]).outputs == (tmp_path / "labels",)
    assert names(tmp_path / "labels") == ["x.png"]


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("1.png", "a.MP4", "b.mp4", "c.zip", "d.CR2", "e.txt", "README", "f.exr")))
    found = survey([tmp_path])
    assert found.left_out == {".mp4": 2, ".zip": 1, ".cr2": 1, ".txt": 1, "": 1, ".exr": 1}
    assert sentences(found.left_out) == [
        "left out: 2 videos (2 .mp4): save frames of them as JPEG or PNG",
        "left out: 1 archive (1 .zip): unpack them",
        "left out: 1 camera raw file (1 .cr2): develop them to JPEG, PNG or TIFF",
        "left out: 1 picture of a format that is not read (1 .exr): convert them to PNG or TIFF",
        "left out: 2 files that are no pictures by their names (1 .txt, 1 without a suffix)",
    ]
    assert not sentences({})
    assert sentences({f".{n}": 9 - n for n in range(8)})[0].endswith(
        "(9 .0, 8 .1, 7 .2, 6 .3, 5 .4, 4 .5, 5 of others)"
    )


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.io.kinds.missing", lambda reader: "heic" if reader == "heic" else None)
    assert sentences({".heic": 3, ".hif": 1}) == [
        "left out: 4 HEIC pictures (3 .heic, 1 .hif): install the extra `heic`,"
        " pip install 'tessera-segmentation[heic]'"
    ]


def test_names_are_below_their_folders_and_unlike_each_other() -> None:
    one = Names((Path("/a/photos"),))
    assert one.of(Path("/a/photos/x/1.png")) == "x/1.png"
    assert one.of(Path("/secret/2.png")) == "2.png"
    three = Names((Path("/a/photos"), Path("/b/photos"), Path("/b/photos-2")))
    assert [three.of(root / "1.png") for root in three.roots] == ["photos/1.png", "photos-2/1.png", "photos-2-2/1.png"]
    assert Names((Path("/"),)).of(Path("/x/1.png")) == "x/1.png"


def test_paths_are_a_sequence_of_paths() -> None:
    paths = Paths(["/a/1.png", Path("/a/2.png"), "/a/3.png"])
    assert (len(paths), paths[1], list(paths[::2])) == (3, Path("/a/2.png"), [Path("/a/1.png"), Path("/a/3.png")])
    assert Path("/a/3.png") in paths
    assert Path("/a/4.png") not in paths
    assert paths == Paths(list(paths)) != Paths([])
