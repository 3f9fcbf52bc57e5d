"""How long each stage of an image took.

Knows nothing of what a stage does.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

STAGES = ("decode", "queue", "encoder", "assign", "crf", "encode")


class Timings:
    """Milliseconds by stage, of one image or of all of a request."""

    def __init__(self, stages: tuple[str, ...] = STAGES) -> None:
        self._ms = dict.fromkeys(stages, 0.0)
        self._running: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the block's time to a stage."""
        self._running[stage] = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: (time.perf_counter() - self._running.pop(stage)) * 1000})

    def add(self, more: Mapping[str, float]) -> None:
        """Adds milliseconds, of stages that are new too."""
        for stage, ms in more.items():
            self._ms[stage] = self._ms.get(stage, 0.0) + ms

    def so_far(self) -> dict[str, float]:
        """Every stage, one that is being measured up to now."""
        now = time.perf_counter()
        return self._ms | {stage: self._ms[stage] + (now - since) * 1000 for stage, since in self._running.items()}
