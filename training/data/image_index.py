"""What was found when image files were opened, remembered by path, size and time of change.

Knows nothing of how a file is opened. A database, so that a million files take little memory and a kill loses a few
seconds' work. It only saves time: damaged, of other options, locked or on a full disk, it is made anew or done without.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

_SECONDS_BETWEEN_COMMITS = 2.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS seen"
    " (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, reason TEXT, warnings TEXT) WITHOUT ROWID"
)


class Stamp(NamedTuple):
    """By what a file is taken for unchanged."""

    size: int
    mtime_ns: int


class Looked(NamedTuple):
    """What opening a file showed: why it cannot be used, None if it can; what was remarked."""

    reason: str | None
    warnings: tuple[str, ...] = ()


class ImageIndex:
    """The memory of one folder of images: `with ImageIndex(path, key) as index`. Threads may share it.

    path  of its file; None: nothing is remembered
    key   what else decides how files are looked at; what another key left is forgotten
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._committed = time.monotonic()

    def __enter__(self) -> Self:
        if self._path is not None:
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.commit()
            self._database.close()

    def known(self, stamps: Mapping[str, Stamp]) -> dict[str, Looked]:
        """What is remembered of files that are still as they were, by path."""
        paths = [os.fsencode(path) for path in stamps]
        rows: list[tuple[bytes, int, int, str | None, str | None]] = []
        with self._lock:
            if self._database is not None and paths:
                marks = ",".join("?" * len(paths))
                try:
                    rows = self._database.execute(f"SELECT * FROM seen WHERE path IN ({marks})", paths).fetchall()
                except sqlite3.Error as error:
                    self._failed(error)
        return {
            name: Looked(reason, tuple(json.loads(warnings)) if warnings else ())
            for path, size, mtime_ns, reason, warnings in rows
            if stamps.get(name := os.fsdecode(path)) == (size, mtime_ns)
        }

    def remember(self, seen: Iterable[tuple[str, Stamp, Looked]]) -> None:
        """Keeps what was found; on disk within seconds."""
        rows = [
            (os.fsencode(path), *stamp, looked.reason, json.dumps(looked.warnings) if looked.warnings else None)
            for path, stamp, looked in seen
        ]
        with self._lock:
            if self._database is None or not rows:
                return
            try:
                self._database.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)
                if time.monotonic() - self._committed > _SECONDS_BETWEEN_COMMITS:
                    self._database.commit()
                    self._committed = time.monotonic()
            except sqlite3.Error as error:
                self._failed(error)

    def _open(self, path: Path, *, again: bool = True) -> None:
        try:
            database = sqlite3.connect(path, timeout=1, check_same_thread=False)
            try:
                database.execute("PRAGMA synchronous = OFF")  # a killed process damages nothing
                database.execute("CREATE TABLE IF NOT EXISTS key (key TEXT)")
                database.execute(_TABLE)
                if database.execute("SELECT key FROM key").fetchall() != [(self._key,)]:
                    database.execute("DELETE FROM key")
                    database.execute("DELETE FROM seen")
                    database.execute("INSERT INTO key VALUES (?)", (self._key,))
                database.commit()
            except sqlite3.Error:
                database.close()
                raise
        except sqlite3.OperationalError:  # locked, a full disk, no folder
            return
        except sqlite3.DatabaseError:  # damaged
            with suppress(OSError):
                _forget(path)
                if again:
                    self._open(path, again=False)
            return
        self._database = database

    def _failed(self, error: sqlite3.Error) -> None:
        """What a damaged file holds is forgotten; the rest of the run goes on without."""
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._path is not None and not isinstance(error, sqlite3.OperationalError):
            with suppress(OSError):
                _forget(self._path)


def _forget(path: Path) -> None:
    path.unlink()
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
