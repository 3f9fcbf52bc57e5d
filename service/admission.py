"""How much work may be in the house at once, and when to come back when it is full.

Knows nothing of HTTP, of models, of what the work is: it counts images, megapixels and bytes.

The queue is bounded here, for all models together, because memory is one: an image holds its pixels from
decoding until its answer is rendered, wherever it waits in between.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Busy

HIGH_WATER = 0.8  # of the bound; above it for FLOODED_S the service calls itself not ready
FLOODED_S = 10.0


class Place:
    """One image's place in the house."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.mpx = 0.0

    def weigh(self, mpx: float) -> None:
        """Say how large the image turned out to be. Raises Busy when there is no room for it."""
        self._admission.check_mpx(mpx)
        self._admission.mpx += mpx
        self.mpx = mpx


class Admission:
    """Counts what is inside; refuses at once what does not fit, never lets it wait outside."""

    def __init__(
        self,
        *,
        max_images: int,
        max_mpx: float,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_images, self._max_mpx, self._max_bytes = max_images, max_mpx, max_bytes
        self._clock = clock
        self._inside: dict[Place, float] = {}  # in order of arrival
        self.mpx = 0.0
        self.bytes = 0
        self._seconds_per_image = 0.0
        self._last_exit = 0.0
        self._high_since: float | None = None

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one image for as long as the block runs. Raises Busy when all are taken."""
        now = self._clock()
        if len(self._inside) >= self._max_images:
            raise self._busy(f"{len(self._inside)} images are in the queue, as many as fit", "queue_full")
        if not self._inside:
            self._last_exit = now  # an idle house says nothing about its speed
        place = Place(self)
        self._inside[place] = now
        self._watch(now)
        try:
            yield place
        finally:
            del self._inside[place]
            self.mpx -= place.mpx
            self._left(self._clock())

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

    def check_mpx(self, mpx: float) -> None:
        """Raises Busy when an image of `mpx` does not fit beside the others."""
        if self.mpx + mpx > self._max_mpx and self.mpx > 0:  # alone, any image within the limits fits
            raise self._busy(f"{self.mpx:.0f} megapixels are in the queue", "pixels_full")

    def retry_after_s(self) -> int:
        """Whole seconds until what is inside now should be done, at the speed measured while busy."""
        return min(60, max(1, math.ceil(len(self._inside) * self._seconds_per_image)))

    def __len__(self) -> int:
        return len(self._inside)

    def oldest_s(self) -> float:
        """How long the longest-waiting image has been here; 0 in an empty house."""
        return self._clock() - next(iter(self._inside.values())) if self._inside else 0.0

    def flooded(self) -> bool:
        """Whether the house has been nearly full for more than FLOODED_S seconds."""
        return self._high_since is not None and self._clock() - self._high_since > FLOODED_S

    def _busy(self, what: str, reason: str) -> Busy:
        wait = self.retry_after_s()
        return Busy(f"{what}; come back in {wait} s", reason=reason, retry_after_s=wait)

    def _left(self, now: float) -> None:
        took = now - self._last_exit
        self._last_exit = now
        first = self._seconds_per_image == 0
        self._seconds_per_image += (took - self._seconds_per_image) * (1.0 if first else 0.1)
        self._watch(now)

    def _watch(self, now: float) -> None:
        if len(self._inside) < HIGH_WATER * self._max_images:
            self._high_since = None
        elif self._high_since is None:
            self._high_since = now
