"""A plan of a run: its parts with their steps, seconds, disk and memory, for people and for the report.

Knows nothing of how any of it was found.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.errors import TesseraError
from models.terminal.progress import span

_GB = 1e9


@dataclass(frozen=True)
class Part:
    """One part of a run. seconds: estimated; count of unit ("steps" or "images")."""

    name: str
    count: int
    unit: str
    seconds: float
    disk_bytes: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """All parts in order, with what there is of disk and memory. process_bytes: of the process while it trains."""

    images: int
    skipped: int
    device: str
    parts: tuple[Part, ...]
    process_bytes: int
    free_disk_bytes: int
    free_memory_bytes: int | None

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(part.seconds for part in self.parts)

    @property
    def disk_bytes(self) -> int:
        """Of all parts."""
        return sum(part.disk_bytes for part in self.parts)

    @property
    def memory_bytes(self) -> int:
        """Of the largest part, with the process around it."""
        return self.process_bytes + max(part.memory_bytes for part in self.parts)

    def facts(self) -> dict[str, Any]:
        """For RUN/cache/facts/plan.json."""
        totals = {"seconds": self.seconds, "disk_bytes": self.disk_bytes, "memory_bytes": self.memory_bytes}
        return asdict(self) | totals

    def lines(self) -> Iterator[str]:
        """As a table for people."""
        width = max(len(part.name) for part in self.parts)
        for part in self.parts:
            disk = f"  {_size(part.disk_bytes)} on disk" if part.disk_bytes else ""
            yield f"  {part.name:{width}}  {part.count:>8} {part.unit}  about {span(part.seconds)}{disk}"
        memory = f" ({_size(self.free_memory_bytes)} free)" if self.free_memory_bytes is not None else ""
        yield (
            f"in all about {span(self.seconds)} on {self.device}; {_size(self.disk_bytes)} of disk"
            f" ({_size(self.free_disk_bytes)} free), {_size(self.memory_bytes)} of memory{memory}"
        )

    def require_room(self, folder: Path) -> None:
        """Raises TesseraError where the disk or the memory would end before the run does."""
        if self.disk_bytes > self.free_disk_bytes:
            most = max(self.parts, key=lambda part: part.disk_bytes)
            raise TesseraError(
                f"the run takes {_size(self.disk_bytes)} of disk, {_size(most.disk_bytes)} of it for {most.name}, and"
                f" {folder} has {_size(self.free_disk_bytes)} left: name an --out on another disk, {_less(most)}"
            )
        if self.free_memory_bytes is not None and self.memory_bytes > self.free_memory_bytes + self.process_bytes:
            most = max(self.parts, key=lambda part: part.memory_bytes)
            raise TesseraError(
                f"{most.name} holds {_size(most.memory_bytes)} of memory at once, and {_size(self.free_memory_bytes)}"
                f" are left: {_less(most)}"
            )


def _less(part: Part) -> str:
    """What makes a part smaller."""
    if part.name == "checkpoints":
        return "keep fewer (train.checkpoint_every), or take a smaller backbone.name"
    return "lower input.train_size, or take fewer images"


def _size(count: int) -> str:
    return f"{count / _GB:.1f} GB" if count >= 0.95 * _GB else f"{count / 1e6:.0f} MB"
