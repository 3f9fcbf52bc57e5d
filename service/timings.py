"""How long each stage of an image took, and when.

Knows nothing of what a stage does.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

_TOLD_S = 0.001  # waits that are shorter are everywhere
STAGES = ("decode", "queue", "encoder", "assign", "crf", "encode")


class Span(NamedTuple):
    """What was done from one moment to another, of time.perf_counter()."""

    name: str
    start: float
    end: float


def at(moment: float) -> float:
    """A moment of time.monotonic(), as the clock here has it: on some systems they count from other beginnings."""
    return moment + (time.perf_counter() - time.monotonic())


class Timings:
    """Milliseconds by stage, of one image or of all of a request.

    spans  what these are sums of, and what no stage counts
    """

    def __init__(self, stages: tuple[str, ...] = STAGES) -> None:
        self._ms = dict.fromkeys(stages, 0.0)
        self._running: dict[str, float] = {}
        self.spans: list[Span] = []

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the block's time to a stage."""
        self._running[stage] = time.perf_counter()
        try:
            yield
        finally:
            self.took(stage, self._running.pop(stage), time.perf_counter())

    def took(self, stage: str, start: float, end: float) -> None:
        """Adds to a stage what was measured elsewhere, by the same clock."""
        self.spans.append(Span(stage, start, end))
        self.add({stage: (end - start) * 1000})

    def waited(self, start: float, end: float) -> None:
        """For what no stage counts, by the same clock: a thread that is free, another's answer for the same image."""
        if end - start > _TOLD_S:
            self.spans.append(Span("wait", start, end))

    def add(self, more: Mapping[str, float]) -> None:
        """Adds milliseconds, of stages that are new too."""
        for stage, ms in more.items():
            self._ms[stage] = self._ms.get(stage, 0.0) + ms

    def so_far(self) -> dict[str, float]:
        """Every stage, one that is being measured up to now."""
        now = time.perf_counter()
        return self._ms | {stage: self._ms[stage] + (now - since) * 1000 for stage, since in self._running.items()}
