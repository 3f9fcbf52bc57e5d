"""What every part of a run took: seconds and the most memory, kept beside the run for the report.

Knows nothing of what the parts do.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from models import hardware
from training.config.facts import note, noted
from training.config.run import Run


class StageCosts:
    """RUN/cache/facts/stages.json: of every part its name, its seconds over all resumptions, its peak memory in MB."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seconds: dict[str, float] = {}  # of this process
        self._before: dict[str, dict[str, float]] = {}
        with suppress(KeyError, TypeError):  # damaged: counted anew
            self._before = {one["name"]: one for one in noted(run, "stages") or ()}
        self._peaks: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Notes what the block took, also of one that is interrupted; of several of one name all together."""
        began = time.monotonic()
        hardware.reset_peak()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            self._peaks[name] = max(self._peaks.get(name, 0.0), hardware.peak_bytes() / 2**20)
            self._note()

    def _note(self) -> None:
        names = [*self._before, *(name for name in self.seconds if name not in self._before)]
        none = {"seconds": 0.0, "peak_mb": 0.0}
        facts = [
            {
                "name": name,
                "seconds": round(self._before.get(name, none)["seconds"] + self.seconds.get(name, 0.0), 2),
                "peak_mb": round(max(self._before.get(name, none)["peak_mb"], self._peaks.get(name, 0.0)), 1),
            }
            for name in names
        ]
        with suppress(OSError):  # a full disk is told by whoever meets it
            note(self.run, "stages", facts)
