"""Admission control: how much work may be inside at once, and when to come back when it is full.

Knows nothing of HTTP, of models, of what the work is: it counts images, megapixels and bytes.

The queue is bounded here, for all models together, because memory is one: an image holds its pixels from
decoding until its answer is rendered, wherever it waits in between. A key's share of it is bounded too, so that
one caller can never fill the server.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Busy, TooMany
from service.fleet.fleet import Fleet
from service.scheduling.fair_queue import BACKGROUND

HIGH_WATER = 0.8  # of the bound; above it for FLOODED_S the service calls itself not ready
FLOODED_S = 10.0
_LATEST = 64  # images whose pace counts


class ServiceRate:
    """How many images are inside, and the seconds from one that leaves to the next, while there are others.

    images   inside now
    seconds  an image takes in a busy server, the mean of the latest; before it was ever busy, what a lone one took;
             0 until one was measured
    """

    __slots__ = ("_latest", "_lone", "_since", "_sum", "images")

    def __init__(self) -> None:
        self.images = 0
        self._since = 0.0
        self._latest: deque[float] = deque()
        self._sum = 0.0
        self._lone = 0.0

    @property
    def seconds(self) -> float:
        return self._sum / len(self._latest) if self._latest else self._lone

    def enter(self, now: float) -> None:
        """One more."""
        if not self.images:
            self._since = now  # an idle server says nothing about its speed
        self.images += 1

    def leave(self, now: float) -> None:
        """One less."""
        self.images -= 1
        took = now - self._since
        self._since = now
        if not self.images:  # how long one takes by itself is not how fast they follow each other
            self._lone = took
            return
        self._latest.append(took)
        self._sum += took
        if len(self._latest) > _LATEST:
            self._sum -= self._latest.popleft()


class Ticket:
    """One image's place in the server, for as long as the block of Admission.ticket runs."""

    __slots__ = ("_admission", "mpx", "working_bytes")

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self.mpx = 0.0
        self.working_bytes = 0

    def set_megapixels(self, mpx: float) -> None:
        """Say how large the image turned out to be; said again, the last counts. Raises Busy without room for it.

        Said by work that outlives the block, as work shared with others does, it counts nothing.
        """
        if self in self._admission.inside:
            self._admission.hold_mpx(mpx, self)
            self.mpx = mpx

    def set_working_bytes(self, count: int) -> None:
        """The same for the bytes that the image's work holds now; fewer than before always fit."""
        if self in self._admission.inside:
            self._admission.hold_working_bytes(count, self)
            self.working_bytes = count


class Admission:
    """Counts what is inside; refuses at once what does not fit, never lets it wait outside.

    fleet                           the servers whose images count as well: the bounds are of all of them together
    max_images, max_mpx, max_bytes  of everybody together; bytes are those of bodies
    max_working_bytes               that large images hold while they are worked on
    max_key_images                  of one key; images without a key have the server's bound only
    """

    def __init__(
        self,
        *,
        max_images: int,
        max_mpx: float,
        max_bytes: int,
        max_working_bytes: int | None = None,
        max_key_images: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        fleet: Fleet | None = None,
    ) -> None:
        fleet = fleet or Fleet()
        self._max_images, self._max_mpx, self._max_bytes = max_images, max_mpx, max_bytes
        self._max_working_bytes = math.inf if max_working_bytes is None else max_working_bytes
        self._max_key_images = max_images if max_key_images is None else max_key_images
        self._clock = clock
        self.inside: dict[Ticket, float] = {}  # in order of arrival
        self._pace = ServiceRate()
        self._keys: dict[str, ServiceRate] = {}  # those with images inside
        self._images, self._mpx = fleet.count("images"), fleet.count("mpx")
        self._bytes, self._working_bytes = fleet.count("bytes"), fleet.count("working_bytes")
        self._rate, self._asked = fleet.count("rate"), fleet.count("asked")
        self._of_key = fleet.tally("images")
        self._high_since: float | None = None
        self._asked.set(-math.inf)

    @contextmanager
    def ticket(self, key: str = "") -> Iterator[Ticket]:
        """A place for one image for as long as its block runs.

        key  whose it is; "" where keys are not in use

        The block's start raises TooMany when this key's places are taken, Busy when all are.
        """
        ticket = Ticket(self)
        self._enter(ticket, key)
        awaited = key != BACKGROUND
        if awaited:
            self._asked.set(self._clock())
        try:
            yield ticket
        finally:
            self._leave(ticket, key)
            if awaited:
                self._asked.set(self._clock())

    @property
    def mpx(self) -> float:
        """Megapixels inside this server."""
        return self._mpx.own

    @property
    def bytes(self) -> int:
        """Of bodies, in this server."""
        return int(self._bytes.own)

    @property
    def working_bytes(self) -> int:
        """Of large images, in this server."""
        return int(self._working_bytes.own)

    def asked_within(self, seconds: float) -> bool:
        """Whether an image that somebody waits for came or left so lately."""
        return self._clock() - self._asked.highest < seconds

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Room for a body's bytes: call what is yielded with each count of bytes. Raises Busy."""
        held = 0

        def add(count: int) -> None:
            nonlocal held
            if not self._bytes.reserve(count, self._max_bytes):
                raise self._busy("too many uploads are under way", "bodies_full")
            held += count

        try:
            yield add
        finally:
            self._bytes.add(-held)

    def hold_mpx(self, mpx: float, ticket: Ticket) -> None:
        """The image with this ticket has so many now. Raises Busy where they do not fit beside those of the others."""
        if not self._mpx.reserve(mpx - ticket.mpx, self._max_mpx, mpx):
            others = self._mpx.total - ticket.mpx
            raise self._busy(f"{others:.0f} megapixels are in the queue", "pixels_full")

    def hold_working_bytes(self, count: int, ticket: Ticket) -> None:
        """The same for the bytes that its work holds."""
        if not self._working_bytes.reserve(count - ticket.working_bytes, self._max_working_bytes, count):
            raise self._busy(
                f"large images are being worked on, and the {count / 2**20:.0f} MiB of this one do not fit beside them",
                "memory_full",
            )

    def retry_after_s(self) -> int:
        """Whole seconds until what is inside now should be done, at the speed measured while busy."""
        return _whole(self._images.total * self._seconds())

    def __len__(self) -> int:
        return len(self.inside)

    def oldest_s(self) -> float:
        """How long the longest-waiting image has been here; 0 in an empty server."""
        return self._clock() - next(iter(self.inside.values())) if self.inside else 0.0

    def flooded(self) -> bool:
        """Whether the server has been nearly full for more than FLOODED_S seconds."""
        self._watch(self._clock())
        return self._high_since is not None and self._clock() - self._high_since > FLOODED_S

    def _enter(self, ticket: Ticket, key: str) -> None:
        if key and not self._of_key.reserve(key, self._max_key_images):
            raise self._too_many(key)
        if not self._images.reserve(1, self._max_images):
            if key:
                self._of_key.add(key, -1)
            raise self._busy(f"{self._images.total:.0f} images are in the queue, as many as fit", "queue_full")
        now = self._clock()
        if key:
            pace = self._keys.get(key)
            if pace is None:
                pace = self._keys[key] = ServiceRate()
            pace.enter(now)
        self._pace.enter(now)
        self.inside[ticket] = now
        self._watch(now)

    def _leave(self, ticket: Ticket, key: str) -> None:
        now = self._clock()
        del self.inside[ticket]
        self._images.add(-1)
        if ticket.mpx:
            self._mpx.set(self.mpx - ticket.mpx if self.inside else 0.0)  # sums of fractions do not end at 0 themselves
        if ticket.working_bytes:
            self._working_bytes.add(-ticket.working_bytes)
        ticket.mpx, ticket.working_bytes = 0.0, 0
        self._pace.leave(now)
        self._rate.set(1 / self._pace.seconds if self._pace.seconds else 0.0)
        if key:
            self._of_key.add(key, -1)
            pace = self._keys[key]
            pace.leave(now)
            if not pace.images:
                del self._keys[key]
        self._watch(now)

    def _busy(self, what: str, reason: str) -> Busy:
        wait = self.retry_after_s()
        return Busy(f"{what}; come back in {wait} s", reason=reason, retry_after_s=wait)

    def _seconds(self) -> float:
        """From one image that leaves a busy server to the next, of all servers together; 0 before one was measured."""
        elsewhere = self._rate.total - self._rate.own
        return 1 / self._rate.total if elsewhere else self._pace.seconds

    def _too_many(self, key: str) -> TooMany:
        """At the key's own speed here; at that of all servers until one of the key's images has left."""
        pace, images = self._keys.get(key), self._of_key.total(key)
        own = pace.images * pace.seconds if pace is not None else 0.0  # others work off theirs meanwhile
        wait = _whole(own or images * self._seconds())
        return TooMany(
            f"{images} images of {key!r} are in the queue, as many as one key may have; come back in {wait} s",
            reason="key_full",
            retry_after_s=wait,
        )

    def _watch(self, now: float) -> None:
        if self._images.total < HIGH_WATER * self._max_images:
            self._high_since = None
        elif self._high_since is None:
            self._high_since = now


def _whole(seconds: float) -> int:
    return min(60, max(1, math.ceil(seconds)))
