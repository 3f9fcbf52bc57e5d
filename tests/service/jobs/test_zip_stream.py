"""The archive that is never written is one that Python's own reader takes, and every range of it is a range of it."""

import io
import random
import subprocess
import zipfile
import zlib
from typing import IO

import pytest

from service.jobs import zip_stream
from service.jobs.zip_stream import Entry, ZipStream


def entry(name: str, data: bytes) -> Entry:
    return Entry(name, len(data), zlib.crc32(data), lambda: io.BytesIO(data))


FILES = {"a.png": b"one" * 9, "b/ü 2.json": b"{}", "empty.npy": b"", "z.bin": bytes(range(256)) * 30}
STREAM = ZipStream([entry(name, data) for name, data in FILES.items()])


def whole(stream: ZipStream) -> bytes:
    data = b"".join(stream.read(0, stream.size))
    assert len(data) == stream.size
    return data


def test_it_is_a_zip_of_those_files() -> None:
    with zipfile.ZipFile(io.BytesIO(whole(STREAM))) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == FILES


def test_any_range_of_it_is_a_range_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_stream, "_CHUNK", 100)
    data, draw = whole(STREAM), random.Random(1)
    for _ in range(500):
        start = draw.randrange(len(data))
        stop = draw.randint(start, len(data))
        assert b"".join(STREAM.read(start, stop)) == data[start:stop]


def test_only_what_is_in_the_range_is_opened() -> None:
    opened: list[str] = []

    def noted(name: str, data: bytes) -> Entry:
        def open_() -> IO[bytes]:
            opened.append(name)
            return io.BytesIO(data)

        return entry(name, data)._replace(open=open_)

    stream = ZipStream([noted(name, data) for name, data in FILES.items()])
    assert b"".join(stream.read(stream.size - 22, stream.size)).startswith(b"PK\5\6")
    assert opened == []


def test_the_tag_tells_other_files_apart() -> None:
    assert ZipStream([entry(name, data) for name, data in FILES.items()]).tag == STREAM.tag
    assert ZipStream([entry(name, data + b"x") for name, data in FILES.items()]).tag != STREAM.tag


def test_more_files_than_zip_could_count_at_first() -> None:
    stream = ZipStream([entry(f"{i}.txt", b"") for i in range(70_000)])
    with zipfile.ZipFile(io.BytesIO(whole(stream))) as archive:
        assert len(archive.infolist()) == 70_000


def test_files_beyond_four_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is moved, not the files: every field that zip64 has is used."""
    monkeypatch.setattr(zip_stream, "_MOST", 5)
    stream = ZipStream([entry(name, data) for name, data in FILES.items()])
    data = b"".join(stream.read(0, stream.size))
    assert len(data) == stream.size
    central = data.index(b"PK\1\2")
    assert data[central + 20 : central + 28] == b"\5\0\0\0\5\0\0\0"
    assert b"PK\6\6" in data
    assert b"PK\6\7" in data


@pytest.mark.slow
def test_other_readers_take_five_gigabytes(tmp_path: object) -> None:
    """A sparse archive on the disk, read by Info-ZIP where it is installed, and by Python."""
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    size = 5 * 2**30
    chunk = bytes(2**20)
    crc = 0
    for _ in range(size // len(chunk)):
        crc = zlib.crc32(chunk, crc)
    zeros = tmp_path / "zeros"
    with zeros.open("wb") as file:
        file.truncate(size)
    stream = ZipStream([Entry("zeros.bin", size, crc, lambda: zeros.open("rb")), entry("after.txt", b"after")])
    archive = tmp_path / "large.zip"
    with archive.open("wb") as file:
        at = 0
        for piece in stream.read(0, stream.size):
            if piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)
            at += len(piece)
        file.truncate(stream.size)
    with zipfile.ZipFile(archive) as opened:
        assert opened.read("after.txt") == b"after"
        assert opened.getinfo("zeros.bin").file_size == size
    found = subprocess.run(["unzip", "-l", str(archive)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
