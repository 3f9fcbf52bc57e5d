"""What one model has done since it was loaded: requests, images, batches, and how long the stages took, in all.

Knows nothing of Prometheus, whose histograms are of all models together; of protocols.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock


@dataclass
class Total:
    """So many things, and the nanoseconds they took together."""

    count: int = 0
    ns: int = 0

    def add(self, ms: float) -> None:
        """One more."""
        self.count += 1
        self.ns += round(ms * 1e6)


@dataclass
class Statistics:
    """Any thread may add; read without a lock, each number is right by itself.

    succeeded, failed  requests, from their last byte to their answer
    queue              images that waited for the network
    decoded, computed, answered  images: their pixels, the network's pass, and all that follows
    kept, passed       images whose network's answer was there already, and those that needed a pass
    batches            the network ran;  latest  image, seconds since 1970; None: there was none yet
    """

    succeeded: Total = field(default_factory=Total)
    failed: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    decoded: Total = field(default_factory=Total)
    computed: Total = field(default_factory=Total)
    answered: Total = field(default_factory=Total)
    kept: Total = field(default_factory=Total)
    passed: Total = field(default_factory=Total)
    batches: int = 0
    latest: float | None = None
    _lock: Lock = field(default_factory=Lock)

    @property
    def images(self) -> int:
        """That were answered."""
        return self.answered.count

    def request(self, ms: float, *, succeeded: bool) -> None:
        """Count a request."""
        with self._lock:
            (self.succeeded if succeeded else self.failed).add(ms)

    def image(self, stages: Mapping[str, float]) -> None:
        """Count an image by the milliseconds of its stages (`service.timings`)."""
        after = stages["assign"] + stages["crf"] + stages["encode"]
        with self._lock:
            if stages["encoder"]:
                self.queue.add(stages["queue"])
                self.decoded.add(stages["decode"])
                self.computed.add(stages["encoder"])
                self.passed.add(stages["encoder"])
            else:
                self.kept.add(after)
            self.answered.add(after)
            self.latest = time.time()

    def batch(self) -> None:
        """Count a batch."""
        with self._lock:
            self.batches += 1
