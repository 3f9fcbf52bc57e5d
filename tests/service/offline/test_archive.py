"""Zip archives of strangers: what is refused, and before what is read."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from service.offline.archive import Archive, ArchiveError, Bounds


def packed(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def reasons(path: Path, bounds: Bounds = Bounds()) -> dict[str, str]:  # noqa: B008
    archive = Archive(path, bounds)
    archive.close()
    return {str(one.path).split("!")[1]: one.reason for one in archive.unusable}


def test_members_are_read_as_they_are(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"b/1.png": b"one", "2.png": b"two", "__MACOSX/2.png": b"-", ".DS_Store": b"-"})
    archive = Archive(path)
    assert [(member.name, archive.read(member.name)) for member in archive.members] == [
        ("b/1.png", b"one"),
        ("2.png", b"two"),
    ]
    assert archive.unusable == []
    archive.close()


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png", "C:/a.png", "..\\a.png", "a\n.png"])
def test_a_name_that_leads_elsewhere_is_not_taken(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "a.zip", {name: b"-", "good.png": b"-"})
    (reason,) = reasons(path).values()
    assert "leads out" in reason


def test_links_doubles_bombs_and_passwords_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bomb.png", bytes(2_000_000))
        archive.writestr("twice.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("twice.png", b"2")
    found = reasons(path)
    assert "link" in found["link.png"]
    assert "200 times" in found["bomb.png"]
    assert "two files" in found["twice.png"]
    locked = bytearray(packed(tmp_path / "b.zip", {"a.png": b"-"}).read_bytes())
    locked[locked.rfind(b"PK\1\2") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(locked)
    assert "password" in reasons(tmp_path / "b.zip")["a.png"]


def test_what_is_too_much_is_refused_as_a_whole(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {f"{i}.png": bytes(100) for i in range(12)})
    with pytest.raises(ArchiveError, match="more than the 10 files"):
        Archive(path, Bounds(members=10))
    with pytest.raises(ArchiveError, match="unpacked it has"):
        Archive(path, Bounds(total_bytes=1000))
    assert "MB" in reasons(path, Bounds(member_bytes=99))["0.png"]


def test_a_table_that_lies_is_found_out(tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "a.zip", {"a.png": b"12345"}, zipfile.ZIP_STORED).read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\1\2") + 16, 7)  # another checksum
    (tmp_path / "a.zip").write_bytes(data)
    archive = Archive(tmp_path / "a.zip")
    with pytest.raises(ArchiveError, match="damaged here"):
        archive.read("a.png")
    archive.close()
    for junk in (b"", b"PK", b"\xff\xd8\xff" * 100, data[:60], b"PK\5\6" + b"\xff" * 18):
        (tmp_path / "b.zip").write_bytes(junk)
        with pytest.raises(ArchiveError):
            Archive(tmp_path / "b.zip")
