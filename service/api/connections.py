"""The connections of one server: how many there may be, which is closed first, and how long each may take.

One look at all of them, four times a second, does what a timer for each would do; a connection only notes by when
something has to have happened.

Knows nothing of HTTP: what comes and goes on a connection is `protocol.py`'s.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from models import hardware
from service.api.client_address import group_of
from service.fleet.fleet import Fleet
from service.metrics import Metrics
from service.settings import Settings

log = logging.getLogger("tessera")

LOOK_S = 0.25
EVADED = 64  # connections beyond a limit, which may ask for probes
PROGRESS = 2**16  # bytes a client has to take of its answer in each TESSERA_WRITE_TIMEOUT_S
STALLED_S = 1.0  # an answer that leaves by itself is gone sooner
REST_S = 1.0  # that a connection may rest when the server ends, before it is closed
FRESH_S = 5.0  # that one may from its beginning, which has asked nothing yet: its request may be on its way
TELL_S = 1.0
QUIET_S = 5.0
_NEVER = math.inf


class Connection(Protocol):
    """One of them.

    address   whose it is, as its limit counts; None: of nobody who is counted
    deadline  of time.monotonic(): when to call `expire`
    over      it came when there was no room: it may ask for probes only
    fresh     it has asked nothing yet
    unread    bytes that its client has not taken yet
    """

    address: str | None
    deadline: float
    over: bool
    fresh: bool

    @property
    def unread(self) -> int: ...

    def expire(self, now: float) -> None:
        """Its deadline is over."""

    def end(self, reason: str) -> None:
        """Close it now; what is unsent is lost."""


@dataclass
class _Client:
    """Of one address: its connections, and those that rest, the longest first."""

    count: int = 0
    resting: dict[Connection, None] = field(default_factory=dict)


class Connections:
    """All of one server.

    draining   whether the server ends: then nobody rests for long
    most_here  of one server, whatever the others of its fleet have
    counted    False for addresses that stand for many clients, as a trusted proxy's does
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        counted: Callable[[str], bool] = lambda address: True,
        fleet: Fleet | None = None,
    ) -> None:
        fleet = fleet or Fleet()
        self._metrics = metrics
        self._counted = counted
        self.most_here = self._most = settings.max_connections
        self._total, self._of = fleet.count("connections"), fleet.tally("connections")
        self._max_of_client = settings.max_client_connections
        self._max_unread = settings.max_unread_bytes
        self.header_timeout_s = settings.header_timeout_s
        self.keep_alive_s = float(settings.keep_alive_s)
        self.write_timeout_s = settings.write_timeout_s
        self.draining = False
        self._all: set[Connection] = set()
        self._over: dict[Connection, None] = {}
        self._resting: dict[Connection, None] = {}
        self._stalled: dict[Connection, float] = {}
        self._clients: dict[str, _Client] = {}
        self._told_at, self._untold = -TELL_S, 0
        self._worked_at: float | None = None

    def __len__(self) -> int:
        return len(self._all)

    @property
    def unread(self) -> int:
        """Bytes of answers that wait in this process for clients to take them."""
        return sum(connection.unread for connection in list(self._stalled))

    def enter(self, connection: Connection, address: str | None) -> None:
        """A new one. Where there are too many, the one that has rested longest goes; where none rests, the new one is
        `over`."""
        connection.address = address = group_of(address) if address and self._counted(address) else None
        full = address is not None and self._of.total(address) >= self._max_of_client
        if full or len(self._all) >= self.most_here or self._total.total >= self._most:
            resting = self._resting if not full else self._clients[address].resting if address in self._clients else {}
            connection.over = not self._close_longest(resting)
        if connection.over:
            self._metrics.refused.labels("connections").inc()
            if len(self._over) >= EVADED:
                next(iter(self._over)).end("connections")
            self._over[connection] = None
        self._all.add(connection)
        self._total.add(1)
        if address is not None:
            self._of.add(address, 1)
            self._clients.setdefault(address, _Client()).count += 1
        self.rest(connection, self.header_timeout_s)

    def leave(self, connection: Connection) -> None:
        """It is closed; said again, nothing changes."""
        if connection not in self._all:
            return
        self.work(connection)
        self.flow(connection)
        self._all.remove(connection)
        self._total.add(-1)
        self._over.pop(connection, None)
        if (address := connection.address) is not None:
            self._of.add(address, -1)
            client = self._clients[address]
            client.count -= 1
            if not client.count:
                del self._clients[address]

    def rest(self, connection: Connection, longest_s: float) -> None:
        """It waits for its client, and may for so many seconds."""
        if self.draining:
            longest_s = min(longest_s, FRESH_S if connection.fresh else REST_S)
        connection.deadline = time.monotonic() + longest_s
        if not connection.over and connection in self._all:
            self._resting[connection] = None
            if connection.address is not None:
                self._clients[connection.address].resting[connection] = None

    def work(self, connection: Connection) -> None:
        """A request of it is being answered, which has deadlines of its own."""
        connection.deadline, connection.fresh = _NEVER, False
        self._resting.pop(connection, None)
        if connection.address is not None:
            self._clients[connection.address].resting.pop(connection, None)

    def stall(self, connection: Connection) -> None:
        """Its client takes its answer more slowly than it was made."""
        now = time.monotonic()
        self._stalled.setdefault(connection, now)
        connection.deadline = now + self.write_timeout_s

    def flow(self, connection: Connection) -> None:
        """Its client has taken nearly all of it."""
        self._stalled.pop(connection, None)

    def tell(self, refusal: str) -> None:
        """One line for the log, of many in a second the first: whoever is refused does not fill a disk."""
        now = time.monotonic()
        self._untold += 1
        if now - self._told_at >= TELL_S:
            more = f", and {self._untold - 1} others since the last line" if self._untold > 1 else ""
            log.info("refused on its connection: %s%s", refusal, more)
            self._told_at, self._untold = now, 0

    def drain(self) -> None:
        """The server ends: whoever rests is closed soon, whoever asks meanwhile is answered."""
        self.draining = True
        soon = time.monotonic() + REST_S
        for connection in list(self._resting):
            begun = connection.deadline - self.header_timeout_s
            latest = max(soon, begun + FRESH_S) if connection.fresh else soon
            connection.deadline = min(connection.deadline, latest)

    def end(self) -> None:
        """Close all that are left."""
        for connection in list(self._all):
            connection.end("drain")

    async def watch(self) -> None:
        """Looks at all of them until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self.look(time.monotonic())
            except Exception:
                log.exception("a look at the connections failed")

    def look(self, now: float) -> None:
        """End what has taken too long, or holds too much; when all rest, give back the memory that work has left."""
        if len(self._resting) + len(self._over) < len(self._all):
            self._worked_at = now
        elif self._worked_at is not None and now - self._worked_at > QUIET_S:
            self._worked_at = None
            hardware.release_memory()
        for connection in [connection for connection in self._all if connection.deadline <= now]:
            connection.expire(now)
        while (held := self.unread) > self._max_unread:
            longest, since = next(iter(self._stalled.items()))
            if now - since < STALLED_S:
                return
            log.warning(
                "%d MB of answers are not read by their clients (TESSERA_MAX_UNREAD_BYTES): the connection that has"
                " waited longest is closed",
                held / 1e6,
            )
            longest.end("unread")

    def _close_longest(self, resting: dict[Connection, None]) -> bool:
        """Close the connection that has rested longest; False where none rests."""
        longest = next(iter(resting), None)
        if longest is None:
            return False
        longest.end("connections")
        return True
