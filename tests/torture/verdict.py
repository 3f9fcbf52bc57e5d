"""A test of the torture: its number, what must hold, what was tried, and the row that says so.

Knows nothing of servers.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Place:
    """Where a test works and how much of it is asked for.

    work    a folder of its own;  bundle  the tiny bundle of `tests/tiny.py`
    quick   a tenth of the rounds and of the seconds, as the rows then say
    soak_s  how long the soak goes on
    """

    work: Path
    bundle: Path
    quick: bool = False
    soak_s: float = 1800.0

    def rounds(self, full: int) -> int:
        """How often something is done, of `full`."""
        return max(1, full // 10) if self.quick else full

    def folder(self, name: str) -> Path:
        """A new folder."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self.work))
        path.chmod(0o755)
        return path


@dataclass
class Found:
    """What one test found.

    tried    cases;  failed  a sentence for each case that did not hold
    figures  what was measured;  absent  parts that nothing here can test yet, and why
    """

    tried: int = 0
    failed: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def must(self, holds: bool, sentence: str, tried: int = 1) -> bool:
        """So many cases more; where it does not hold, `sentence` says what was seen."""
        self.tried += tried
        if not holds:
            self.failed.append(sentence)
        return holds

    def figure(self, *sentences: str) -> None:
        """Something measured, for the table."""
        self.figures += sentences

    def not_built(self, sentence: str) -> None:
        """A part that is not there to be tested: never counted as passed."""
        self.absent.append(sentence)


Work = Callable[[Place, Found], Awaitable[None]]


class Trial(NamedTuple):
    """One row. `number` is RELIABILITY's, or a letter for what this project adds; `limit_s` ends it."""

    number: str
    title: str
    limit_s: float
    long: bool
    work: Work


TESTS: list[Trial] = []


def torture(number: str, title: str, *, limit_s: float = 180.0, long: bool = False) -> Callable[[Work], Work]:
    """Puts a function into the table. `long`: minutes, left out where only the short ones are asked for."""

    def add(work: Work) -> Work:
        TESTS.append(Trial(number, title, limit_s, long, work))
        return work

    return add


class Row(NamedTuple):
    """One line of the table: `verdict` is `passed`, `FAILED` or `not built`."""

    number: str
    title: str
    tried: int
    failed: list[str]
    figures: list[str]
    absent: list[str]
    verdict: str
    seconds: float


async def judged(test: Trial, place: Place) -> Row:
    """What a test found, whatever it raises."""
    found, began = Found(), time.monotonic()
    limit_s = test.limit_s + (place.soak_s if test.long else 0.0)
    try:
        async with asyncio.timeout(limit_s):
            await test.work(place, found)
    except TimeoutError:
        found.failed.append(f"the test itself was not done after {limit_s:.0f} s")
    except Exception as error:  # a test that cannot go on has failed
        found.failed.append(f"{type(error).__name__}: {error}")
    verdict = "FAILED" if found.failed else "passed" if found.tried else "not built"
    return Row(
        test.number, test.title, found.tried, found.failed, found.figures, found.absent, verdict,
        round(time.monotonic() - began, 1),
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows as Markdown: test, tried, failed, figures, verdict."""
    lines = ["| | test | tried | failed | figures | verdict |", "|---|---|---|---|---|---|"]
    for row in rows:
        said = [*row.figures, *(f"not built: {part}" for part in row.absent)]
        cells = [row.number, row.title, str(row.tried), str(len(row.failed)), "; ".join(said), row.verdict]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    for row in rows:
        lines += ["", f"{row.number}, {row.title}:"] if row.failed else []
        lines += [f"  * {sentence[:300]}" for sentence in row.failed[:12]]
        lines += [f"  * and {len(row.failed) - 12} more"] if len(row.failed) > 12 else []
    return "\n".join(lines)
