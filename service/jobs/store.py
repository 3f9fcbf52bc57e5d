"""All jobs of one folder, in a database: they outlive the server, and several servers see the same.

Knows nothing of images, of HTTP, of who runs a job. What is told as done is on the disk when `record` returns.

    jobs   one row for each; `kept_s` counts the seconds for which servers ran after its end: no clock is asked
    files  what became of each image, once something did: its files in the result as JSON, or why there are none
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from service.errors import NotKept, TooMany
from service.jobs.job import ACTIVE, Job, Outcome, Output, State
from service.repository.database import Database

T = TypeVar("T")
_TABLES = (
    "CREATE TABLE IF NOT EXISTS jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " owner TEXT NOT NULL, state TEXT NOT NULL, model TEXT NOT NULL, options TEXT NOT NULL, formats TEXT NOT NULL,"
    " source TEXT NOT NULL, created REAL NOT NULL, note TEXT NOT NULL DEFAULT '', total INTEGER,"
    " done INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,"
    " worked_s REAL NOT NULL DEFAULT 0, kept_s REAL NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS files (job TEXT, path TEXT, stem TEXT NOT NULL, outputs TEXT NOT NULL,"
    " reason TEXT, PRIMARY KEY (job, path)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS failures ON files (job, path) WHERE reason IS NOT NULL",
)
_COLUMNS = (
    "id, number, owner, state, model, options, formats, source, created, note, total, done, failed, bytes, worked_s"
)
_ACTIVE = ", ".join(f"'{state}'" for state in ACTIVE)
_LOOK_S = 5.0
_LATER_S = 60  # to come back in, who has as many jobs as may be


class Failure(NamedTuple):
    """An image of which there is no answer."""

    file: str
    reason: str


class JobStore(Database):
    """The database `jobs.sqlite3` in a folder."""

    refused = "Jobs pause and new ones are refused until it can; set TESSERA_JOBS to a folder that can be written"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "jobs.sqlite3")

    async def add(self, job: Job, *, most_jobs: int, most_bytes: int) -> Job:
        """Keep a new job, with the next number, where its owner has no more than so many, and so many bytes with it.

        Raises TooMany, NotKept.
        """

        def work(connection: sqlite3.Connection) -> Job:
            kept = _kept(connection, job.owner, most_jobs)
            if kept + job.bytes > most_bytes:
                raise NotKept(too_much(kept, job.bytes, most_bytes))
            connection.execute(
                "INSERT INTO jobs (id, owner, state, model, options, formats, source, created, total, bytes)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id, job.owner, job.state, job.model, json.dumps(dict(job.options)), json.dumps(job.formats),
                    job.source, job.created, job.total, job.bytes,
                ),
            )  # fmt: skip
            return _found(connection, job.id)

        return await self.write(work)

    async def get(self, id: str) -> Job | None:
        """One of them. Raises NotKept where that cannot be said now."""
        rows = await self._rows("WHERE id = ?", id)
        return rows[0] if rows else None

    async def listed(self, owner: str | None, before: int | None, most: int) -> list[Job]:
        """Those of an owner, or all for None, the latest first; `before` a number."""
        return await self._rows(
            "WHERE (?1 IS NULL OR owner = ?1) AND (?2 IS NULL OR number < ?2) ORDER BY number DESC LIMIT ?3",
            owner, before, most,
        )  # fmt: skip

    async def active(self) -> list[Job]:
        """Those that are not finished, the oldest first."""
        return await self._rows(f"WHERE state IN ({_ACTIVE}) ORDER BY number")

    async def failures(self, id: str, after: str, most: int) -> list[Failure]:
        """Of a job's images those that failed, by path, behind `after`."""
        query = "SELECT path, reason FROM files WHERE job = ? AND reason IS NOT NULL AND path > ? ORDER BY path LIMIT ?"
        return await self._look(
            lambda connection: [Failure(*row) for row in connection.execute(query, (id, after, most))]
        )

    async def outputs(self, id: str) -> list[tuple[str, list[Output]]]:
        """The files of a job's result: of each image that has any, by the images' paths."""

        def work(connection: sqlite3.Connection) -> list[tuple[str, list[Output]]]:
            query = "SELECT path, outputs FROM files WHERE job = ? AND reason IS NULL ORDER BY path"
            rows = connection.execute(query, (id,))
            return [(path, [Output(*output) for output in json.loads(outputs)]) for path, outputs in rows]

        return await self._look(work)

    async def settled(self, id: str) -> dict[str, str]:
        """The paths of a job's images of which something became, and what their files are called."""
        query = "SELECT path, stem FROM files WHERE job = ?"
        return await self._look(lambda connection: dict(connection.execute(query, (id,)).fetchall()))

    async def room(self, owner: str, most_jobs: int) -> int:
        """The bytes that an owner's jobs keep, where one more may begin. Raises TooMany, NotKept."""
        return await self._look(lambda connection: _kept(connection, owner, most_jobs))

    async def kept_bytes(self, owner: str) -> int:
        """That an owner's jobs keep."""
        query = "SELECT coalesce(sum(bytes), 0) FROM jobs WHERE owner = ?"
        return await self._look(lambda connection: int(connection.execute(query, (owner,)).fetchone()[0]))

    async def counts(self) -> dict[str, int]:
        """How many there are in each state."""
        query = "SELECT state, count(*) FROM jobs GROUP BY state"
        return await self._look(lambda connection: dict(connection.execute(query).fetchall()))

    async def record(self, id: str, outcomes: Sequence[Outcome], worked_s: float) -> Job | None:
        """Keep what became of images; the job as it is now, None where it is deleted. Said again, nothing changes.

        Raises NotKept: nothing has changed then.
        """

        def work(connection: sqlite3.Connection) -> Job | None:
            if not _known(connection, id):
                return None
            done = failed = size = 0
            for path, outputs, reason, stem in outcomes:
                new = connection.execute(
                    "INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?)", (id, path, stem, json.dumps(outputs), reason)
                ).rowcount
                done += new
                failed += new and reason is not None
                size += new * sum(output.size for output in outputs)
            connection.execute(
                "UPDATE jobs SET done = done + ?, failed = failed + ?, bytes = bytes + ?, worked_s = worked_s + ?"
                " WHERE id = ?",
                (done, failed, size, worked_s, id),
            )
            return _found(connection, id)

        return await self.write(work)

    async def move(self, id: str, state: State, note: str = "", *, total: int | None = None) -> Job | None:
        """An unfinished job to another state; the job as it is then, changed or not, None where it is deleted."""

        def work(connection: sqlite3.Connection) -> Job | None:
            connection.execute(
                "UPDATE jobs SET state = ?, note = ?, total = coalesce(?, total)"
                f" WHERE id = ? AND state IN ({_ACTIVE})",
                (state, note, total, id),
            )
            return _found(connection, id) if _known(connection, id) else None

        return await self.write(work)

    async def remove(self, id: str) -> None:
        """Forget a job. Its files are the caller's."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM files WHERE job = ?", (id,))
            connection.execute("DELETE FROM jobs WHERE id = ?", (id,))

        await self.write(work)

    async def age(self, elapsed_s: float, longest_s: float) -> list[str]:
        """Finished jobs get so many seconds older; those that have been kept for longer than they may be."""

        def work(connection: sqlite3.Connection) -> list[str]:
            connection.execute(f"UPDATE jobs SET kept_s = kept_s + ? WHERE state NOT IN ({_ACTIVE})", (elapsed_s,))
            old = connection.execute(f"SELECT id FROM jobs WHERE state NOT IN ({_ACTIVE}) AND kept_s > ?", (longest_s,))
            return [id for (id,) in old]

        return await self.write(work)

    async def ids(self) -> set[str]:
        """Of all of them. Raises NotKept where that cannot be said: an empty answer would have their files deleted."""
        return await self._look(lambda connection: {id for (id,) in connection.execute("SELECT id FROM jobs")})

    async def _look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        found = await self.read(work, _LOOK_S)
        if self.standing_in:
            raise NotKept("the jobs' database cannot be opened now; come back, the server's log tells why")
        return found

    async def _rows(self, where: str, *values: Any) -> list[Job]:
        query = f"SELECT {_COLUMNS} FROM jobs {where}"
        return await self._look(lambda connection: [_job(row) for row in connection.execute(query, values)])

    def lay_out(self, connection: sqlite3.Connection) -> None:
        for table in _TABLES:
            connection.execute(table)

    def check(self, connection: sqlite3.Connection) -> None:
        """SQLite's own check is all: what is lost with a job is work that can be done again."""

    def rescue(self, damaged: sqlite3.Connection, connection: sqlite3.Connection) -> int:
        rows = 0
        with suppress(sqlite3.Error, ValueError, KeyError, TypeError):
            for row in damaged.execute("SELECT * FROM jobs"):
                rows += connection.execute(
                    f"INSERT OR IGNORE INTO jobs VALUES ({', '.join('?' * len(row))})", row
                ).rowcount
        with suppress(sqlite3.Error, ValueError, KeyError, TypeError):
            for row in damaged.execute("SELECT * FROM files"):
                json.loads(row[3])
                rows += connection.execute("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?)", row).rowcount
        return rows


def new_job(id: str, owner: str, **facts: Any) -> Job:
    """A job that is queued now."""
    return Job(id=id, number=0, owner=owner, state=State.QUEUED, created=time.time(), **facts)


def too_much(kept: int, more: int, most: int) -> str:
    """Why a key's jobs may keep no more."""
    return (
        f"your jobs keep {kept / 2**20:.0f} MiB, and with {more / 2**20:.0f} MiB more would keep more than the"
        f" {most / 2**20:.0f} MiB of one key (TESSERA_MAX_KEY_JOB_BYTES); delete a finished one"
    )


def _kept(connection: sqlite3.Connection, owner: str, most_jobs: int) -> int:
    """Bytes of an owner's jobs. Raises TooMany where so many are not finished."""
    query = f"SELECT count(*) FILTER (WHERE state IN ({_ACTIVE})), coalesce(sum(bytes), 0) FROM jobs WHERE owner = ?"
    jobs, kept = connection.execute(query, (owner,)).fetchone()
    if jobs >= most_jobs:
        raise TooMany(
            f"{jobs} jobs of yours are not finished, as many as one key may have (TESSERA_MAX_KEY_JOBS); wait for one,"
            " or cancel one",
            reason="jobs_full",
            retry_after_s=_LATER_S,
        )
    return int(kept)


def _known(connection: sqlite3.Connection, id: str) -> bool:
    return connection.execute("SELECT 1 FROM jobs WHERE id = ?", (id,)).fetchone() is not None


def _found(connection: sqlite3.Connection, id: str) -> Job:
    return _job(connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id,)).fetchone())


def _job(row: Iterable[Any]) -> Job:
    id, number, owner, state, model, options, formats, source, *rest = row
    return Job(id, number, owner, State(state), model, json.loads(options), tuple(json.loads(formats)), source, *rest)
