"""A zip that is never written: its bytes are known from the names, lengths and checksums of its files.

Files are stored as they are (pictures are packed already), so the archive's length and every byte's place are known
before a file is opened, and any range of it can be sent; with zip64 where it is needed.

Knows nothing of jobs, of HTTP, of where the files come from.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_AT = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_PLAIN, _LARGE = 20, 45  # the version of zip that a reader needs
_UTF8 = 0x800
_MIDNIGHT = 0x21  # 1980-01-01, the first day that a zip knows: the same files give the same bytes
_MOST, _MANY = 0xFFFFFFFF, 0xFFFF
_CHUNK = 2**18


class Entry(NamedTuple):
    """A file of the archive: its name, length and CRC-32, and what opens it."""

    name: str
    size: int
    crc: int
    open: Callable[[], IO[bytes]]


class ZipStream:
    """The archive of some files, in their order.

    size  of the whole archive;  tag  the same for the same files, another for others
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._offsets: list[int] = []
        seen = hashlib.sha256()
        at = 0
        for entry in entries:
            self._offsets.append(at)
            at += len(_local(entry)) + entry.size
            seen.update(f"{entry.name}\0{entry.size}\0{entry.crc}\n".encode())
        self._directory_at = at
        length = sum(len(_central(entry, offset)) for entry, offset in zip(entries, self._offsets, strict=True))
        self._end = _ending(len(entries), length, at)
        self.size = at + length + len(self._end)
        self.tag = seen.hexdigest()[:32]

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`, in pieces. Raises OSError where a file is gone or shorter."""
        at = 0
        for piece in self._pieces(start):
            length = piece if isinstance(piece, int) else len(piece)
            if at >= stop:
                return
            if not isinstance(piece, int) and at + length > start:
                yield piece[max(0, start - at) : stop - at]
            at += length

    def _pieces(self, start: int) -> Iterator[bytes | int]:
        """All bytes in order; of what lies before `start` as a whole, only how many they are."""
        for entry, offset in zip(self._entries, self._offsets, strict=True):
            head = _local(entry)
            if offset + len(head) + entry.size <= start:
                yield len(head) + entry.size
                continue
            yield head
            skipped = max(0, min(entry.size, start - offset - len(head)))
            yield skipped
            left = entry.size - skipped
            with entry.open() as file:
                file.seek(skipped)
                while left:
                    data = file.read(min(left, _CHUNK))
                    if not data:
                        raise OSError(f"{entry.name} is shorter than it was")
                    left -= len(data)
                    yield data
        for entry, offset in zip(self._entries, self._offsets, strict=True):
            yield _central(entry, offset)
        yield self._end


def _local(entry: Entry) -> bytes:
    name = entry.name.encode()
    large = entry.size >= _MOST
    extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.size) if large else b""
    size = _MOST if large else entry.size
    version = _LARGE if large else _PLAIN
    head = _LOCAL.pack(
        b"PK\3\4", version, _UTF8, 0, 0, _MIDNIGHT, entry.crc, size, size, len(name), len(extra)
    )  # fmt: skip
    return head + name + extra


def _central(entry: Entry, offset: int) -> bytes:
    name = entry.name.encode()
    large, far = entry.size >= _MOST, offset >= _MOST
    numbers = [entry.size, entry.size] * large + [offset] * far
    extra = struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    size = _MOST if large else entry.size
    version = _LARGE if numbers else _PLAIN
    head = _CENTRAL.pack(
        b"PK\1\2", 3 << 8 | version, version, _UTF8, 0, 0, _MIDNIGHT, entry.crc, size, size, len(name), len(extra),
        0, 0, 0, 0o644 << 16, _MOST if far else offset,
    )  # fmt: skip
    return head + name + extra


def _ending(count: int, length: int, at: int) -> bytes:
    """What stands behind the directory, which has `length` bytes and begins `at`."""
    large = b""
    if count >= _MANY or length >= _MOST or at >= _MOST:
        large = _END64.pack(b"PK\6\6", 44, 3 << 8 | _LARGE, _LARGE, 0, 0, count, count, length, at)
        large += _END64_AT.pack(b"PK\6\7", 0, at + length, 1)
    return large + _END.pack(
        b"PK\5\6", 0, 0, min(count, _MANY), min(count, _MANY), min(length, _MOST), min(at, _MOST), 0
    )  # fmt: skip
