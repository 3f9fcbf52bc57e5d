"""Room on the disk for what jobs keep: how much is free, and how much of it uploads under way have been promised.

Knows nothing of jobs, of HTTP. A promise counts in full until its file is whole; so two uploads at once are never both
let in where only one fits.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import NotKept
from service.jobs.store import too_much


class Promise:
    """Room for one upload: so many bytes of it are promised, so many written."""

    def __init__(self, room: "Room", owner: str, kept: int) -> None:
        self._room, self._owner, self._kept = room, owner, kept
        self.promised = self.written = 0

    def ask(self, total: int) -> None:
        """Room for so many bytes in all. Raises NotKept where the disk or the key's share has none."""
        more = total - self.promised
        if more > 0:
            self._room.check(self._owner, self._kept, more)
            self.promised += more
            self._room.promised[self._owner] += more

    def wrote(self, count: int) -> None:
        """So many more bytes are on the disk."""
        self.written += count


class Room:
    """Of one folder.

    free       tells the bytes of its disk that are free
    keep_free  of them that jobs leave;  most  that one key's jobs may keep

    promised   to uploads that are under way, by key
    """

    def __init__(self, free: Callable[[], int], *, keep_free: int, most: int) -> None:
        self._free, self._keep_free, self._most = free, keep_free, most
        self.promised: Counter[str] = Counter()
        self._promises: set[Promise] = set()

    @contextmanager
    def promise(self, owner: str, kept: int) -> Iterator[Promise]:
        """Around an upload of an owner whose jobs keep so many bytes."""
        promise = Promise(self, owner, kept)
        self._promises.add(promise)
        try:
            yield promise
        finally:
            self._promises.remove(promise)
            self.promised[owner] -= promise.promised
            if not self.promised[owner]:
                del self.promised[owner]

    def check(self, owner: str, kept: int, more: int) -> None:
        """Raises NotKept where so many more bytes have no room beside what is promised."""
        ahead = sum(promise.promised - promise.written for promise in self._promises)
        if (short := self.shortage(ahead + more)) is not None:
            raise NotKept(short)
        if kept + self.promised[owner] + more > self._most:
            raise NotKept(too_much(kept + self.promised[owner], more, self._most))

    def shortage(self, more: int = 0) -> str | None:
        """Why so many more bytes cannot be written, in a sentence; None: they can."""
        left = self._free() - self._keep_free
        if left >= more and left > 0:
            return None
        return (
            f"the disk of the jobs has {max(0, left) / 2**20:.0f} MiB left for them (TESSERA_JOB_FREE_BYTES stay free);"
            " delete finished jobs, or have the operator make room"
        )

    def overdrawn(self, kept: int) -> str | None:
        """Why a key's jobs, which keep so many bytes, may keep no more; None: they may."""
        return None if kept < self._most else too_much(kept, 0, self._most)
