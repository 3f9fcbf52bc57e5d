"""What people teach, kept in the state folder beside what they call clusters: `classes.sqlite3`.

Knows nothing of what the fields mean, of HTTP or of networks. Of a class are kept under the bundle's name what it is
called and its examples, and under the bundle's digest which clusters belong to it: those follow to a newer bundle of
the same name by its fingerprint, as changes do (`change_store.py`).

    bundles  as `change_store.py` has them: those of which clusters are kept
    said     of a scope (`model:NAME` or `bundle:DIGEST`), a class and a field: the value as JSON, null where it was
             taken back; its sequence number, that only grows; written: the number of the transaction that wrote it
"""

import json
import logging
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from models.bundle import Bundle
from service.repository.change_store import Kept, PreviousNames, from_npz, to_npz
from service.repository.cluster_changes import Record, Said
from service.repository.database import READ_S, WRITE_S, Damaged, Database, checksum, readable

log = logging.getLogger("tessera")

CLUSTERS = "clusters"  # the field that is kept under the bundle's digest

_TABLES = (
    "CREATE TABLE IF NOT EXISTS store (id TEXT NOT NULL, probes INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS bundles (digest TEXT PRIMARY KEY, name TEXT NOT NULL, ref TEXT NOT NULL,"
    " fingerprint BLOB, checksum INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS said (scope TEXT, class INTEGER, field TEXT, value TEXT NOT NULL,"
    " sequence INTEGER NOT NULL, written INTEGER NOT NULL, checksum INTEGER NOT NULL,"
    " PRIMARY KEY (scope, class, field)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS said_written ON said (scope, written)",
)
_BUNDLES = "SELECT digest, name, ref, fingerprint, checksum FROM bundles"
_SAID = "SELECT scope, class, field, value, sequence, written, checksum FROM said"
_LATER = (
    "INSERT INTO said VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope, class, field) DO UPDATE SET"
    " value = excluded.value, sequence = excluded.sequence, written = excluded.written, checksum = excluded.checksum"
    " WHERE excluded.sequence > said.sequence"
)
_MOST_REMOVED = 4096  # of a scope: rows of what was taken back that are kept for servers which have not looked yet


class ClassStore(Database):
    """What was taught to all models of one state folder, merged field by field, whichever server it comes to."""

    refused = (
        "Classes and examples are refused until it can; set TESSERA_STATE to a folder that can be written, with room"
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "classes.sqlite3")

    async def look(self, bundle: Bundle, seen: Kept, limit_s: float = READ_S) -> Kept:
        """What is kept for a bundle now; `seen` itself where that is still it. Raises NotKept where none can say."""
        return await self.read(lambda connection: _kept(connection, bundle, seen), limit_s)

    async def update(
        self, bundle: Bundle, seen: Kept, change: Callable[[Kept, int], Record], limit_s: float = WRITE_S
    ) -> Kept:
        """Write what `change` makes of what is kept, in one transaction; only what differs is written.

        seen    what the caller has read before: only what came since is read again
        change  is given what is kept and the next sequence number, returns the whole new record; it runs in a thread

        Raises NotKept, or what `change` raises: nothing has changed then.
        """

        def work(connection: sqlite3.Connection) -> Kept:
            kept = _kept(connection, bundle, seen)
            number = _next(connection)
            record = change(kept, number)
            differing = {key: said for key, said in record.items() if kept.record.get(key) != said}
            if not differing:
                return kept
            if any(field == CLUSTERS for _, field in differing):
                _add_bundle(connection, bundle)
            scopes = _scopes(bundle)
            for (id, field), said in differing.items():
                row = (scopes[field == CLUSTERS], id, field, json.dumps(said.value), said.sequence)
                connection.execute(_LATER, (*row, number, checksum(*row)))
            _forget(connection, scopes[False])
            return Kept(kept.store, number, record)

        return await self.write(work, limit_s)

    async def before(self, bundle: Bundle) -> PreviousNames | None:
        """The clusters of classes, as they were last said of another bundle with this one's name; None where nothing
        was. Raises NotKept."""

        def work(connection: sqlite3.Connection) -> PreviousNames | None:
            others = connection.execute(
                "SELECT digest, ref, fingerprint, (SELECT max(sequence) FROM said WHERE scope = 'bundle:' || digest)"
                " AS latest FROM bundles WHERE name = ? AND digest != ? ORDER BY latest DESC",
                (bundle.manifest.name, bundle.digest),
            )
            for digest, ref, fingerprint, _ in others.fetchall():
                if record := _record(connection, f"bundle:{digest}"):
                    try:
                        return PreviousNames(ref, record, from_npz(fingerprint))
                    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
                        log.warning("%s: clusters of classes kept of %s cannot follow: %s", bundle.ref, ref, error)
            return None

        return await self.read(work, 5.0)

    async def probe(self) -> None:
        """Try whether anything can be written. Raises NotKept."""
        await self.write(lambda connection: connection.execute("UPDATE store SET probes = probes + 1"))

    def lay_out(self, connection: sqlite3.Connection) -> None:
        for table in _TABLES:
            connection.execute(table)
        empty = "SELECT ? WHERE NOT EXISTS (SELECT 1 FROM store)"
        connection.execute(f"INSERT INTO store (id) {empty}", (uuid4().hex,))

    def check(self, connection: sqlite3.Connection) -> None:
        _identity(connection)
        for row in connection.execute(_BUNDLES):
            _sound_bundle(row)
        for row in connection.execute(_SAID):
            _said(row)

    def rescue(self, damaged: sqlite3.Connection, connection: sqlite3.Connection) -> int:
        bundles = readable(damaged, _BUNDLES, _sound_bundle)
        connection.executemany("INSERT OR IGNORE INTO bundles VALUES (?, ?, ?, ?, ?)", bundles)
        rows = readable(damaged, _SAID, _said)
        connection.executemany(_LATER, rows)
        return len(rows)


def _scopes(bundle: Bundle) -> tuple[str, str]:
    """Of what belongs to the model's name, and of what belongs to this very bundle."""
    return f"model:{bundle.manifest.name}", f"bundle:{bundle.digest}"


def _kept(connection: sqlite3.Connection, bundle: Bundle, seen: Kept) -> Kept:
    scopes, store = _scopes(bundle), _identity(connection)
    (latest,) = connection.execute("SELECT max(written) FROM said WHERE scope IN (?, ?)", scopes).fetchone()
    sequence = latest or 0
    if (store, sequence) == seen[:2]:
        return seen
    if store == seen.store and sequence > seen.sequence:
        news = {key: said for scope in scopes for key, said in _record(connection, scope, seen.sequence).items()}
        return Kept(store, sequence, {**seen.record, **news})
    return Kept(store, sequence, {key: said for scope in scopes for key, said in _record(connection, scope).items()})


def _record(connection: sqlite3.Connection, scope: str, since: int = 0) -> Record:
    """What was written in a scope after a transaction."""
    rows = connection.execute(f"{_SAID} WHERE scope = ? AND written > ?", (scope, since))
    return {(row[1], row[2]): _said(row) for row in rows}


def _identity(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT id FROM store").fetchone()
    if row is None:
        raise Damaged("its identity is missing")
    return str(row[0])


def _next(connection: sqlite3.Connection) -> int:
    """A number later than all."""
    return int(connection.execute("SELECT max(max(sequence), max(written)) FROM said").fetchone()[0] or 0) + 1


def _said(row: tuple[Any, ...]) -> Said:
    """A row of `said`. Raises Damaged where it is not as it was written."""
    if checksum(*row[:5]) != row[6] or not (isinstance(row[5], int) and 0 < row[5] < 2**53):
        raise Damaged(f"the {str(row[2])[:20]} of class {str(row[1])[:20]} is not what was written")
    return Said(json.loads(row[3]), row[4])


def _add_bundle(connection: sqlite3.Connection, bundle: Bundle) -> None:
    if connection.execute("SELECT 1 FROM bundles WHERE digest = ?", (bundle.digest,)).fetchone() is None:
        told = (bundle.digest, bundle.manifest.name, bundle.ref)
        row = (*told, to_npz(bundle), checksum(*told))
        connection.execute("INSERT OR IGNORE INTO bundles VALUES (?, ?, ?, ?, ?)", row)


def _sound_bundle(row: tuple[Any, ...]) -> None:
    """Raises Damaged for a row of `bundles` that is not as it was written. The fingerprint has checksums of its own."""
    if checksum(*row[:3]) != row[4]:
        raise Damaged(f"what is kept of the bundle {str(row[2])[:80]} is not what was written")


def _forget(connection: sqlite3.Connection, scope: str) -> None:
    """The oldest of what was taken back, where there is much of it: everybody has seen it."""
    removed = "FROM said WHERE scope = ? AND value = 'null'"
    (count,) = connection.execute(f"SELECT count(*) {removed}", (scope,)).fetchone()
    if count > _MOST_REMOVED:
        oldest = f"SELECT class, field {removed} ORDER BY sequence LIMIT ?"
        rows = connection.execute(oldest, (scope, count - _MOST_REMOVED // 2)).fetchall()
        connection.executemany(
            "DELETE FROM said WHERE scope = ? AND class = ? AND field = ?", [(scope, *r) for r in rows]
        )
