"""Zip archives: what a stranger packed is judged by the archive's table first, and read within limits.

Knows nothing of images.
"""

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from models.errors import TesseraError
from models.io.paths import Skipped
from models.io.walker import NOT_ENTERED
from service.errors import printable, quoted

_END, _END_64, _ENTRY = b"PK\5\6", b"PK\6\6", b"PK\1\2"
_END_BYTES, _LOCATOR_BYTES, _END_64_BYTES, _ENTRY_BYTES = 22, 20, 56, 46
_COMMENT_BYTES = 2**16
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_FREE_BYTES = 2**20  # of a member: so much may come of any number of bytes


class ArchiveError(TesseraError):
    """An archive that cannot be read, or asks for more than is granted."""


class Bounds(NamedTuple):
    """What is taken of an archive: members, bytes of one and of all together, and how much one may grow unpacked."""

    members: int = 200_000
    member_bytes: int = 2**31
    total_bytes: int = 2**42
    ratio: int = 200


class Member(NamedTuple):
    """A file in an archive: its name there, with forward slashes; bytes unpacked; what changes when it does."""

    name: str
    size: int
    stamp: str


class Archive:
    """An open one. Members can be read from several threads.

    bounds    what is taken of it
    members   in the archive's order;  unusable  what is in it and cannot be taken, with the reason

    Raises ArchiveError, and OSError.
    """

    def __init__(self, path: Path, bounds: Bounds = Bounds()) -> None:  # noqa: B008
        self.path, self.bounds = path, bounds
        self.members: list[Member] = []
        self.unusable: list[Skipped] = []
        with path.open("rb") as file:
            _check_table(file, path, bounds)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise ArchiveError(f"{path}: the archive is damaged: {_said(error)}") from None
        self._infos: dict[str, zipfile.ZipInfo] = {}
        try:
            self._judge()
        except BaseException:
            self._zip.close()
            raise

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises ArchiveError where they are not what the table says, and OSError."""
        info = self._infos[name]
        try:
            with self._zip.open(info) as file:
                data = file.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise ArchiveError(f"the archive is damaged here: {_said(error)}") from None
        if len(data) != info.file_size:
            raise ArchiveError("the archive is damaged here: there is not what its table says")
        return data

    def close(self) -> None:
        """Lets the file go."""
        self._zip.close()

    def _judge(self) -> None:
        total = 0
        for info in self._zip.infolist():
            name = info.filename.replace("\\", "/")
            if info.is_dir() or not (_escapes(name) or _is_data(name)):
                continue
            total += info.file_size
            if reason := self._refusal(info, name):
                self.unusable.append(Skipped(Path(f"{self.path}!{printable(name)[:200]}"), reason))
                continue
            self._infos[name] = info
            self.members.append(Member(name, info.file_size, f"{info.CRC:08x}"))
        if total > self.bounds.total_bytes:
            raise ArchiveError(
                f"{self.path}: unpacked it has {total / 1e9:.1f} GB, and {self.bounds.total_bytes / 1e9:.1f} GB are"
                " taken; divide it"
            )

    def _refusal(self, info: zipfile.ZipInfo, name: str) -> str | None:
        if _escapes(name):
            return "its name leads out of the archive, or cannot be shown"
        if name in self._infos:
            return "the archive holds two files of this name; the first is taken"
        if stat.S_ISLNK(info.external_attr >> 16):
            return "it is a link; pack the file"
        if info.flag_bits & 1:
            return "it is encrypted; pack it without a password"
        if info.compress_type not in _PACKED:
            return f"it is packed by a method (number {info.compress_type}) that is not unpacked here"
        if info.file_size > self.bounds.member_bytes:
            return f"unpacked it has {info.file_size / 1e6:.0f} MB, and {self.bounds.member_bytes / 1e6:.0f} are taken"
        if info.file_size > max(_FREE_BYTES, self.bounds.ratio * info.compress_size):
            return f"unpacked it is more than {self.bounds.ratio} times as large, as no image is"
        return None


def _is_data(name: str) -> bool:
    """Whether the walker of folders would come to a file of this name."""
    *folders, file = name.split("/")
    return not file.startswith(".") and not any(NOT_ENTERED.match(folder) for folder in folders)


def _escapes(name: str) -> bool:
    """Whether a name is more than a path below a folder: absolute, with a drive or steps upwards, or unseen signs."""
    unseen = any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name)
    return unseen or name.startswith("/") or bool(re.match("[A-Za-z]:", name)) or ".." in name.split("/")


def _check_table(file: BinaryIO, path: Path, bounds: Bounds) -> None:
    """Counts the entries of the archive's table, before anything is made of them. Raises ArchiveError.

    Source: PKWARE, APPNOTE.TXT 6.3.10, 4.3.12 to 4.3.16.
    """
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - _END_BYTES - _COMMENT_BYTES)
    file.seek(start)
    tail = file.read(end - start)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise ArchiveError(f"{path}: this is no zip archive, or its end is missing")
    length = struct.unpack_from("<I", tail, at + 12)[0]
    before = start + at
    at_64 = start + at - _LOCATOR_BYTES - _END_64_BYTES
    if at_64 >= 0:
        file.seek(at_64)
        end_64 = file.read(_END_64_BYTES)
        if end_64.startswith(_END_64):
            length, before = struct.unpack_from("<Q", end_64, 40)[0], at_64
    if length > before:
        raise ArchiveError(f"{path}: the archive is damaged: its table would be longer than the file")
    count, position = 0, before - length
    while position + _ENTRY_BYTES <= before:
        file.seek(position)
        entry = file.read(_ENTRY_BYTES)
        if not entry.startswith(_ENTRY):
            break
        position += _ENTRY_BYTES + sum(struct.unpack_from("<3H", entry, 28))
        count += 1
        if count > bounds.members:
            raise ArchiveError(f"{path}: it holds more than the {bounds.members} files that are taken; divide it")


def _said(error: Exception) -> str:
    return quoted(str(error) or type(error).__name__, 120)
