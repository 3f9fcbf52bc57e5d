"""What is sampled while something else goes on: how fast a probe answers, how much memory is held.

Each watcher works apart, so that it measures the server and not the loop that tortures it.

Knows nothing of what goes on meanwhile.
"""

import json
import statistics
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE

from tests.torture.process import Server


@dataclass
class Probes:
    """What a probe answered: statuses (or an error's name) and the seconds each took."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def worst_ms(self) -> float:
        """The slowest."""
        return 1000 * max(self.seconds, default=float("inf"))

    @property
    def median_ms(self) -> float:
        """Half of them were faster."""
        return 1000 * statistics.median(self.seconds or [float("inf")])

    def only(self, *statuses: str) -> bool:
        """Whether there were answers, and no others."""
        return bool(self.statuses) and set(self.statuses) <= set(statuses)


@contextmanager
def probing(
    port: int,
    method: str = "GET",
    path: str = "/livez",
    body: bytes | None = None,
    *,
    source: str = "127.0.0.1",
    every_s: float = 0.05,
    limit_s: float = 30.0,
) -> Iterator[Probes]:
    """Asks again and again on connections of its own while the block runs; what it was answered is known afterwards."""
    how = [str(port), method, path, source, str(every_s), str(limit_s)]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", Path(__file__).with_name("probe.py"), *how], stdin=PIPE, stdout=PIPE
    ) as asking:
        assert asking.stdin is not None
        assert asking.stdout is not None
        asking.stdin.write(body or b"")
        asking.stdin.close()
        asking.stdout.readline()
        probes = Probes()
        try:
            yield probes
        finally:
            asking.terminate()
            for status, seconds in json.loads(asking.stdout.read()):
                probes.statuses[status] += 1
                probes.seconds.append(seconds)


@dataclass
class Memory:
    """Resident memory in MB, sampled from the start on."""

    samples: list[float] = field(default_factory=list)

    @property
    def rise_mb(self) -> float:
        """The most over the first."""
        return max(self.samples) - self.samples[0] if self.samples else 0.0

    @property
    def drift(self) -> float:
        """Median of the last third over that of the second, minus 1: what grows without end shows here."""
        third = len(self.samples) // 3
        if not third:
            return 0.0
        return statistics.median(self.samples[-third:]) / statistics.median(self.samples[third : 2 * third]) - 1


@contextmanager
def memory(server: Server, every_s: float = 0.1) -> Iterator[Memory]:
    """Samples a server and all below it while the block runs."""
    held, over = Memory([server.rss_mb()]), threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            if sample := server.rss_mb():
                held.samples.append(sample)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        over.set()
        thread.join(40)


def milliseconds(seconds: Sequence[float], share: float) -> float:
    """The quantile of some times."""
    return 1000 * sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else float("inf")
