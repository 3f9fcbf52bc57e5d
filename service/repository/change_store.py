"""What people say of clusters, kept in the state folder under the bundle's digest: it meets the same ones again.

Knows nothing of what the changes mean, of HTTP or of networks. Beside a bundle's changes lies its fingerprint: with it
they follow to a newer bundle of the same name.

    bundles  digest, name and ref; sequence: of the last time anything of it was written; fingerprint: an .npz file of
             `centroids` float32 [K, D], `image` uint8 [H, W, 3], `labels` uint8 [H, W], the golden image's
    changes  of a digest, a cluster and a field: the value as JSON, null where it was taken back, its sequence number
"""

import io
import json
import logging
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from models.bundle import Bundle, Golden
from service.repository import legacy_names
from service.repository.cluster_changes import Record, Said, newest
from service.repository.cluster_matching import Fingerprint
from service.repository.database import READ_S, Damaged, Database, checksum, readable

log = logging.getLogger("tessera")

_TABLES = (
    "CREATE TABLE IF NOT EXISTS store (id TEXT NOT NULL, probes INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS bundles (digest TEXT PRIMARY KEY, name TEXT NOT NULL, ref TEXT NOT NULL,"
    " sequence INTEGER NOT NULL, fingerprint BLOB, checksum INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS changes (digest TEXT, cluster INTEGER, field TEXT, value TEXT NOT NULL,"
    " sequence INTEGER NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (digest, cluster, field)) WITHOUT ROWID",
)
_BUNDLES = "SELECT digest, name, ref, sequence, fingerprint, checksum FROM bundles"
_CHANGES = "SELECT digest, cluster, field, value, sequence, checksum FROM changes"
_LATER_BUNDLE = (
    "INSERT INTO bundles VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET sequence = max(bundles.sequence, excluded.sequence)"
)
_LATER = (
    "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (digest, cluster, field)"
    " DO UPDATE SET value = excluded.value, sequence = excluded.sequence, checksum = excluded.checksum"
    " WHERE excluded.sequence > changes.sequence"
)


class Kept(NamedTuple):
    """What is kept of one bundle.

    store  which database says so;  sequence  of the last change to this bundle, 0 where it is not known
    """

    store: str = ""
    sequence: int = 0
    record: Record = {}  # noqa: RUF012  never written to


class PreviousNames(NamedTuple):
    """What people changed about an older bundle's clusters, and what is needed to find these again."""

    ref: str
    record: Record
    fingerprint: Fingerprint


class ChangeStore(Database):
    """The changes in one state folder, merged one by one, whichever server they come to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "state.sqlite3")
        self._folder = folder

    async def look(self, digest: str, seen: Kept, limit_s: float = READ_S) -> Kept:
        """What is kept of a bundle now; `seen` itself where that is still it. Raises NotKept where none can say."""

        def work(connection: sqlite3.Connection) -> Kept:
            store, sequence = _version(connection, digest)
            return seen if (store, sequence) == seen[:2] else Kept(store, sequence, _record(connection, digest))

        return await self.read(work, limit_s)

    async def update(self, bundle: Bundle, change: Callable[[Kept, int], Record]) -> Kept:
        """Write what `change` makes of what is kept, in one transaction; only what differs is written.

        change  is given what is kept and the next sequence number, returns the whole new record; it runs in a thread

        Raises NotKept, or what `change` raises: nothing has changed then.
        """
        digest = bundle.digest

        def work(connection: sqlite3.Connection) -> Kept:
            kept = Kept(*_version(connection, digest), _record(connection, digest))
            number = _next(connection)
            record = change(kept, number)
            number = max(number, newest(record))
            if not kept.sequence:
                _add_bundle(connection, digest, bundle.ref, number, to_npz(bundle))
            elif record == kept.record:
                return kept
            else:
                connection.execute("UPDATE bundles SET sequence = ? WHERE digest = ?", (number, digest))
            for key, said in record.items():
                if kept.record.get(key) != said:
                    _write(connection, digest, *key, said)
            return Kept(kept.store, number, record)

        return await self.write(work)

    async def before(self, bundle: Bundle) -> PreviousNames | None:
        """What was last kept of another bundle with this one's name; None where there is nothing. Raises NotKept."""
        digest = bundle.digest

        def work(connection: sqlite3.Connection) -> PreviousNames | None:
            others = connection.execute(
                "SELECT digest, ref, fingerprint FROM bundles WHERE name = ? AND digest != ? ORDER BY sequence DESC",
                (bundle.manifest.name, digest),
            )
            for other, ref, fingerprint in others.fetchall():
                record = _record(connection, other)
                if all(said.value is None for said in record.values()):
                    continue
                try:
                    return PreviousNames(ref, record, from_npz(fingerprint))
                except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
                    log.warning("%s: names kept of %s cannot follow: %s", bundle.ref, ref, error)
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
        for number, old in enumerate(legacy_names.read(self._folder / "clusters"), _next(connection)):
            _add_bundle(connection, old.digest, old.ref, number, old.fingerprint)
            for key, value in old.values.items():
                _write(connection, old.digest, *key, Said(value, number))

    def check(self, connection: sqlite3.Connection) -> None:
        _version(connection, "")
        for row in connection.execute(_BUNDLES):
            _sound_bundle(row)
        for row in connection.execute(_CHANGES):
            _said(row)

    def rescue(self, damaged: sqlite3.Connection, connection: sqlite3.Connection) -> int:
        for row in readable(damaged, _BUNDLES, _sound_bundle):
            connection.execute(_LATER_BUNDLE, row)
        rows = readable(damaged, _CHANGES, _said)
        connection.executemany(_LATER, rows)
        return len(rows)


def _version(connection: sqlite3.Connection, digest: str) -> tuple[str, int]:
    query = "SELECT id, (SELECT sequence FROM bundles WHERE digest = ?) FROM store"
    row = connection.execute(query, (digest,)).fetchone()
    if row is None:
        raise Damaged("its identity is missing")
    return row[0], row[1] or 0


def _next(connection: sqlite3.Connection) -> int:
    """A sequence number later than all."""
    query = "SELECT max(sequence) FROM (SELECT sequence FROM bundles UNION ALL SELECT sequence FROM changes)"
    return (connection.execute(query).fetchone()[0] or 0) + 1


def _record(connection: sqlite3.Connection, digest: str) -> Record:
    rows = connection.execute(f"{_CHANGES} WHERE digest = ?", (digest,))
    return {(row[1], row[2]): _said(row) for row in rows}


def _said(row: tuple[Any, ...]) -> Said:
    """A row of `changes`. Raises Damaged where it is not as it was written."""
    if checksum(*row[:5]) != row[5]:
        raise Damaged(f"the {str(row[2])[:20]} of cluster {str(row[1])[:20]} is not what was written")
    return Said(json.loads(row[3]), row[4])


def _write(connection: sqlite3.Connection, digest: str, cluster: int, field: str, said: Said) -> None:
    row = (digest, cluster, field, json.dumps(said.value), said.sequence)
    connection.execute(_LATER, (*row, checksum(*row)))


def _add_bundle(connection: sqlite3.Connection, digest: str, ref: str, number: int, fingerprint: bytes | None) -> None:
    name = ref.rpartition("@")[0]
    row = (digest, name, ref, number, fingerprint, checksum(digest, name, ref))
    connection.execute("INSERT OR IGNORE INTO bundles VALUES (?, ?, ?, ?, ?, ?)", row)


def _sound_bundle(row: tuple[Any, ...]) -> None:
    """Raises Damaged for a row of `bundles` that is not as it was written. The fingerprint has checksums of its own."""
    if checksum(*row[:3]) != row[5] or not (isinstance(row[3], int) and 0 < row[3] < 2**53):
        raise Damaged(f"what is kept of the bundle {str(row[2])[:80]} is not what was written")


def to_npz(bundle: Bundle) -> bytes:
    """A bundle's fingerprint as the bytes of a file."""
    image, labels = bundle.golden
    file = io.BytesIO()
    np.savez_compressed(file, centroids=bundle.centroids, image=image, labels=labels)
    return file.getvalue()


def from_npz(data: bytes | None) -> Fingerprint:
    """What `to_npz` made. Raises OSError, EOFError, ValueError, KeyError, BadZipFile for what it did not."""
    if data is None:
        raise ValueError("there is no fingerprint")
    with np.load(io.BytesIO(data), allow_pickle=False) as seen:
        return Fingerprint(seen["centroids"], Golden(seen["image"], seen["labels"]))
