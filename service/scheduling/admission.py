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
            self._admission.check_mpx(mpx, self)
            self._admission.mpx += mpx - self.mpx
            self.mpx = mpx

    def set_working_bytes(self, count: int) -> None:
        """The same for the bytes that the image's work holds now; fewer than before always fit."""
        if self in self._admission.inside:
            if count > self.working_bytes:
                self._admission.check_working_bytes(count, self)
            self._admission.working_bytes += count - self.working_bytes
            self.working_bytes = count


class Admission:
    """Counts what is inside; refuses at once what does not fit, never lets it wait outside.

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
    ) -> None:
        self._max_images, self._max_mpx, self._max_bytes = max_images, max_mpx, max_bytes
        self._max_working_bytes = math.inf if max_working_bytes is None else max_working_bytes
        self._max_key_images = max_images if max_key_images is None else max_key_images
        self._clock = clock
        self.inside: dict[Ticket, float] = {}  # in order of arrival
        self._pace = ServiceRate()
        self._keys: dict[str, ServiceRate] = {}  # those with images inside
        self.mpx = 0.0
        self.bytes = 0
        self.working_bytes = 0
        self._high_since: float | None = None
        self._asked = -math.inf

    @contextmanager
    def ticket(self, key: str = "") -> Iterator[Ticket]:
        """A place for one image for as long as its block runs.

        key  whose it is; "" where keys are not in use

        The block's start raises TooMany when this key's places are taken, Busy when all are.
        """
        ticket = Ticket(self)
        self._enter(ticket, key)
        awaited = key != BACKGROUND
        self._asked = self._clock() if awaited else self._asked
        try:
            yield ticket
        finally:
            self._leave(ticket, key)
            self._asked = self._clock() if awaited else self._asked

    def asked_within(self, seconds: float) -> bool:
        """Whether an image that somebody waits for came or left so lately."""
        return self._clock() - self._asked < seconds

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Room for a body's bytes: call what is yielded with each count of bytes. Raises Busy."""
        held = 0

        def add(count: int) -> None:
            nonlocal held
            if self.bytes + count > self._max_bytes:
                raise self._busy("too many uploads are under way", "bodies_full")
            held += count
            self.bytes += count

        try:
            yield add
        finally:
            self.bytes -= held

    def check_mpx(self, mpx: float, ticket: Ticket | None = None) -> None:
        """Raises Busy when an image of `mpx`, in its `place` if it has one, does not fit beside the others."""
        others = self.mpx - (ticket.mpx if ticket else 0.0)
        if others + mpx > self._max_mpx and others > 0:  # alone, any image within the limits fits
            raise self._busy(f"{others:.0f} megapixels are in the queue", "pixels_full")

    def check_working_bytes(self, count: int, ticket: Ticket) -> None:
        """Raises Busy when the work of the image with this ticket does not fit beside that of the others."""
        others = self.working_bytes - ticket.working_bytes
        if others + count > self._max_working_bytes and others > 0:  # alone, any image within the limits fits
            raise self._busy(
                f"large images are being worked on, and the {count / 2**20:.0f} MiB of this one do not fit beside them",
                "memory_full",
            )

    def retry_after_s(self) -> int:
        """Whole seconds until what is inside now should be done, at the speed measured while busy."""
        return _whole(self._pace.images * self._pace.seconds)

    def __len__(self) -> int:
        return len(self.inside)

    def oldest_s(self) -> float:
        """How long the longest-waiting image has been here; 0 in an empty server."""
        return self._clock() - next(iter(self.inside.values())) if self.inside else 0.0

    def flooded(self) -> bool:
        """Whether the server has been nearly full for more than FLOODED_S seconds."""
        return self._high_since is not None and self._clock() - self._high_since > FLOODED_S

    def _enter(self, ticket: Ticket, key: str) -> None:
        pace = self._keys.get(key) if key else None
        if pace is not None and pace.images >= self._max_key_images:
            raise self._too_many(key, pace)
        if len(self.inside) >= self._max_images:
            raise self._busy(f"{len(self.inside)} images are in the queue, as many as fit", "queue_full")
        now = self._clock()
        if key:
            if pace is None:
                pace = self._keys[key] = ServiceRate()
            pace.enter(now)
        self._pace.enter(now)
        self.inside[ticket] = now
        self._watch(now)

    def _leave(self, ticket: Ticket, key: str) -> None:
        now = self._clock()
        del self.inside[ticket]
        self.mpx = self.mpx - ticket.mpx if self.inside else 0.0  # sums of fractions do not end at 0 by themselves
        self.working_bytes -= ticket.working_bytes
        ticket.mpx, ticket.working_bytes = 0.0, 0
        self._pace.leave(now)
        if key:
            pace = self._keys[key]
            pace.leave(now)
            if not pace.images:
                del self._keys[key]
        self._watch(now)

    def _busy(self, what: str, reason: str) -> Busy:
        wait = self.retry_after_s()
        return Busy(f"{what}; come back in {wait} s", reason=reason, retry_after_s=wait)

    def _too_many(self, key: str, pace: ServiceRate) -> TooMany:
        """At the key's own speed; at the server's until one of the key's images has left."""
        wait = _whole(pace.images * (pace.seconds or self._pace.seconds))
        return TooMany(
            f"{pace.images} images of {key!r} are in the queue, as many as one key may have; come back in {wait} s",
            reason="key_full",
            retry_after_s=wait,
        )

    def _watch(self, now: float) -> None:
        if len(self.inside) < HIGH_WATER * self._max_images:
            self._high_since = None
        elif self._high_since is None:
            self._high_since = now


def _whole(seconds: float) -> int:
    return min(60, max(1, math.ceil(seconds)))
