"""A progress bar where someone watches, plain lines where the output goes to a file.

Knows nothing of what is being counted.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from models.errors import TesseraError

_SECONDS_BETWEEN_LINES = 10.0  # without a terminal; a log of a night's run stays readable


def say(console: Console, text: str) -> None:
    """One line as it stands: no markup, no colors, not broken to the terminal's width."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def exit_code(console: Console, *, again: str = "") -> Iterator[None]:
    """What a command does: an error ends it with one sentence and its own exit code; `again` goes on after Ctrl-C."""
    try:
        yield
    except TesseraError as error:
        say(console, str(error) if error.exit_code == 130 else f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        say(console, f"stopped; to go on from the last checkpoint: {again}" if again else "stopped")
        raise typer.Exit(130) from None


class Progress:
    """Counts towards a total: `with Progress(console, "reading", 50) as bar: bar.advance()`."""

    def __init__(self, console: Console, what: str, total: int, *, done: int = 0) -> None:
        self._console, self._what, self._total, self._done = console, what, total, done
        self._note = ""
        self._rich: RichProgress | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._rich = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
            )
            self._task = self._rich.add_task(self._what, total=self._total, completed=self._done, note="")
            self._rich.start()
        else:
            self._line()
        return self

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """n more are done; `note` stands behind the bar until the next one."""
        self._done += n
        self._note = self._note if note is None else note
        if self._rich is not None:
            self._rich.update(self._task, completed=self._done, note=self._note)
        elif self._done >= self._total or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        say(self._console, f"{self._what}: {self._done}/{self._total} {self._note}".rstrip())

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()
