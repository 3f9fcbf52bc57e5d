"""One SQLite file that several servers share, also from several machines, and that outlives its own damage.

Knows nothing of what is in it: `ChangeStore` lays it out. A rollback journal in place of a write-ahead log, on purpose:
it needs no memory that processes share, so the folder may be mounted by several machines; what was kept can be read
where nothing can be written; and the file alone is the whole state. Nothing here looks at the time of day.
"""

import asyncio
import logging
import os
import sqlite3
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

from models.files import move_aside
from service.errors import NotKept

log = logging.getLogger("tessera")

T = TypeVar("T")
WRITE_S = 5.0  # for a change, the wait for other servers included
READ_S = 0.25  # for a look: who asks goes on with what was known before
_GRACE_S = 2.0  # for a disk that does not answer at all
_TRIES = 3
_VERSION = 1
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Damaged(sqlite3.DatabaseError):
    """Content that is not what was written."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Database(ABC):
    """The file, worked on by one thread of its own, a piece of work after the other, each with a deadline.

    writable  whether the last attempt to write succeeded
    refused   what is refused meanwhile, and what helps; for the log

    What is written is on the disk when `write` returns (synchronous=EXTRA). A file that turns out to be damaged is
    moved aside, and the next one begins with what can still be read of it. Where the file cannot be opened, `read`
    finds what a new one would begin with, and `write` raises NotKept.
    """

    refused = (
        "Names and colors given with PATCH are refused until it can; set TESSERA_STATE to a folder that can be written,"
        " with room"
    )

    def __init__(self, file: Path) -> None:
        self.file = file
        self.writable = True
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None  # device and inode of the file it leads to
        self._stand_in: sqlite3.Connection | None = None  # in memory, while the file cannot be opened

    @property
    def standing_in(self) -> bool:
        """Whether `read` finds what a new file would begin with: this one cannot be opened."""
        return self._stand_in is not None

    @abstractmethod
    def lay_out(self, connection: sqlite3.Connection) -> None:
        """Within a transaction: make the tables that are not there yet."""

    @abstractmethod
    def check(self, connection: sqlite3.Connection) -> None:
        """Raises Damaged where the content is not what was written."""

    @abstractmethod
    def rescue(self, damaged: sqlite3.Connection, connection: sqlite3.Connection) -> int:
        """Within a transaction: take over what can be read of a damaged file; how many rows that were."""

    async def read(self, work: Callable[[sqlite3.Connection], T], limit_s: float = READ_S) -> T:
        """What `work` finds, at one moment. Raises NotKept where the file is busy for longer than the limit."""
        return await self._in_thread(lambda deadline: self._transact("DEFERRED", work, deadline), limit_s)

    async def write(self, work: Callable[[sqlite3.Connection], T], limit_s: float = WRITE_S) -> T:
        """What `work` returns, once what it changed is on the disk.

        It may run more than once. Raises NotKept, or what `work` raises: nothing has changed then.
        """

        def job(deadline: float) -> T:
            try:
                result = self._transact("IMMEDIATE", work, deadline)
            except NotKept as error:
                self._tell(str(error))
                raise
            self._tell(None)
            return result

        return await self._in_thread(job, limit_s)

    def close(self) -> None:
        """End the thread after what it was given before."""

        def end() -> None:
            self._disconnect()
            if self._stand_in is not None:
                self._stand_in.close()

        self._thread.submit(end)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, job: Callable[[float], T], limit_s: float) -> T:
        future = self._thread.submit(copy_context().run, job, time.monotonic() + limit_s)
        waiting = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait([waiting], timeout=limit_s)
            if not done and future.cancel():
                raise NotKept("it is busy with earlier changes")
            if not done:
                done, _ = await asyncio.wait([waiting], timeout=_GRACE_S)
            if not done:
                self._tell(silent := "its disk does not answer")
                raise NotKept(silent)
            return waiting.result()
        finally:
            waiting.cancel()

    def _tell(self, failure: str | None) -> None:
        if failure is None and not self.writable:
            log.info("%s can be written again", self.file)
        elif failure is not None and self.writable:
            log.error("%s cannot be written: %s. %s", self.file, failure, self.refused)
        self.writable = failure is None

    def _transact(self, kind: str, work: Callable[[sqlite3.Connection], T], deadline: float) -> T:
        """Runs in the thread, as all below."""
        try:
            for _ in range(_TRIES):
                connection = self._connect(deadline, writing=kind == "IMMEDIATE")
                try:
                    with _transaction(connection, kind, deadline):
                        result = work(connection)
                except sqlite3.DatabaseError as error:
                    if not _is(error, _DAMAGED):
                        raise
                    self._disconnect()  # opening it again moves it aside
                    continue
                if connection is self._stand_in or self._opened == _identity(self.file):
                    return result
                self._disconnect()  # moved aside meanwhile, by another server or by hand: what was written went with it
            raise NotKept("it is damaged or replaced again and again")
        except (sqlite3.Error, OSError) as error:
            self._disconnect()  # whatever state the connection is in, the next one begins afresh
            raise NotKept(_words(error)) from None

    def _connect(self, deadline: float, *, writing: bool) -> sqlite3.Connection:
        """To the file; for reading, where that cannot be opened, to a stand-in until something could be written."""
        if self._stand_in is not None and not writing:
            return self._stand_in
        if self._connection is not None and self._opened == _identity(self.file):
            self._connection.execute(f"PRAGMA busy_timeout = {_left_ms(deadline)}")
            return self._connection
        self._disconnect()
        try:
            self._connection = self._open(deadline)
            self._opened = _identity(self.file)
        except (sqlite3.Error, OSError, NotKept) as error:
            if writing or _is(error, _BUSY):
                raise
            self._tell(_words(error))
            self._stand_in = sqlite3.connect(":memory:", isolation_level=None)
            self._begin(self._stand_in, deadline)
            return self._stand_in
        if self._stand_in is not None:
            self._stand_in.close()
            self._stand_in = None
        return self._connection

    def _open(self, deadline: float) -> sqlite3.Connection:
        try:
            return self._open_sound(deadline)
        except sqlite3.DatabaseError as error:
            if not _is(error, _DAMAGED):
                raise
        self._put_aside(deadline)
        return self._open_sound(deadline)

    def _open_sound(self, deadline: float) -> sqlite3.Connection:
        """A connection to the file, made where there is none. Raises sqlite3.Error, as Damaged is, OSError, NotKept."""
        _make_folder(self.file.parent)
        if self.file.exists() and not self.file.stat().st_size:
            log.warning(
                "%s is empty, as a start that is cut short leaves it; what was kept there before is lost", self.file
            )
        found = _identity(self.file)
        connection = _connection(self.file)
        try:
            connection.execute(f"PRAGMA busy_timeout = {_left_ms(deadline)}")
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA trusted_schema = OFF")
            ((version,),) = connection.execute("PRAGMA user_version")
            if version > _VERSION:
                raise NotKept("a newer version of Tessera made it")
            ((verdict,),) = connection.execute("PRAGMA integrity_check(1)")
            if verdict != "ok":
                raise Damaged(verdict)
            if version == _VERSION:
                self.check(connection)
            with suppress(sqlite3.OperationalError):  # read-only: what is there can be read all the same
                connection.execute("PRAGMA journal_mode = DELETE")
            if version < _VERSION:
                self._begin(connection, deadline)
            if found not in (None, _identity(self.file)):
                raise sqlite3.OperationalError("it was replaced while it was opened")
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Lay out a new database, with what can be read of those that were moved aside."""
        with _transaction(connection, "IMMEDIATE", deadline):
            self.lay_out(connection)
            for aside in sorted(self.file.parent.glob(f"{self.file.name}.damaged-*[0-9]")):
                with closing(_connection(aside)) as damaged:
                    rows = self.rescue(damaged, connection)
                log.warning("%d rows could still be read in %s and are kept, others there are lost", rows, aside)
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _put_aside(self, deadline: float) -> None:
        """Move a damaged file aside, unless another server just did."""
        with closing(sqlite3.connect(self.file.with_suffix(".lock"), isolation_level=None)) as lock:
            lock.execute(f"PRAGMA busy_timeout = {_left_ms(deadline)}")
            lock.execute("BEGIN EXCLUSIVE")
            try:
                self._open_sound(deadline).close()
            except sqlite3.DatabaseError as error:
                if not _is(error, _DAMAGED):
                    raise
                aside = move_aside(self.file, also=("-journal", "-wal", "-shm"))
                log.error("%s is damaged (%s); it lies at %s now, and a new one begins", self.file, error, aside.name)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._opened = None


def checksum(*row: object) -> int:
    """Of what a row holds, to be kept in it."""
    return zlib.crc32(repr(row).encode())


def readable(connection: sqlite3.Connection, query: str, check: Callable[[Any], object]) -> list[Any]:
    """The rows that pass `check`, which raises Damaged, among those that come before the first one that cannot be
    read."""
    rows = []
    with suppress(sqlite3.Error):
        for row in connection.execute(query):
            with suppress(Damaged):
                check(row)
                rows.append(row)
    return rows


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str, deadline: float) -> Iterator[None]:
    """Around work that is done as a whole or not at all; once its deadline is past, not at all."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        if time.monotonic() > deadline:
            raise NotKept("its disk is too slow")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _connection(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=rwc", uri=True, isolation_level=None)
    connection.text_factory = lambda text: text.decode(errors="replace")  # of a damaged file
    return connection


def _make_folder(folder: Path) -> None:
    """A folder and those above it, there also when the power goes."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    with suppress(PermissionError):  # a folder that may be written and not read; any folder on Windows
        above = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(above)
        finally:
            os.close(above)


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file is at a path: its device and inode."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is(error: Exception, codes: tuple[int, ...]) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


def _left_ms(deadline: float) -> int:
    return max(1, round((deadline - time.monotonic()) * 1000))


def _words(error: Exception) -> str:
    """An error's own words, without this machine's paths."""
    if _is(error, _BUSY):
        return "another server holds it"
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
