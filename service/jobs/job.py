"""A job as it is kept: whose it is, what it is to do, how far it has come.

Knows nothing of files, of databases, of HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a job is in its life.

    paused  it goes on by itself once what its note names is changed
    failed  it as a whole; images that fail are counted, and the job is `done`
    """

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (State.QUEUED, State.RUNNING, State.PAUSED)


class Output(NamedTuple):
    """One file of a result: its name there, its length and its CRC-32."""

    name: str
    size: int
    crc: int


class Outcome(NamedTuple):
    """What became of one image: its files, or why there are none.

    stem  what its files are called, without a format's suffix
    """

    path: str
    outputs: tuple[Output, ...] = ()
    reason: str | None = None
    stem: str = ""


@dataclass(frozen=True)
class Job:
    """One job.

    number   later ones have higher ones
    owner    the name of the key that made it; `` where nobody needs one
    note     why it is paused or has failed, and what to do
    model    name@digest12, from its beginning to its end
    options  of every image, as they were written;  formats  of every answer
    source   a folder, or an object store's, as it was written; `` for an upload
    created  seconds of time.time(), for people: nothing is judged by it
    total    images; None until they are counted
    done, failed  of them;  bytes  on the disk, the upload's and the results'
    worked_s  while it ran
    """

    id: str
    number: int
    owner: str
    state: State
    model: str
    options: Mapping[str, str]
    formats: tuple[str, ...]
    source: str
    created: float
    note: str = ""
    total: int | None = None
    done: int = 0
    failed: int = 0
    bytes: int = 0
    worked_s: float = 0.0
