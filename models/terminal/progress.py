"""A progress bar where someone watches, plain lines with clock and time left where the output goes to a file.

Knows nothing of what is being counted.
"""

import errno
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from models.errors import TesseraError

_SECONDS_BETWEEN_LINES = 5.0  # without a terminal, and in a log
_SECONDS_UNTOLD = 1.0  # a part that is done within them has no line of its own


class LoggedConsole(Console):
    """The console on stderr, and a file that gets every line of it with the time of day: no bars, no colors.

    What is said before the file is there is kept, and written first.
    """

    def __init__(self) -> None:
        super().__init__(stderr=True)
        self._early: list[str] = []
        self._log: Path | None = None

    def log_to(self, path: Path) -> None:
        """From now on, lines go to the end of this file too."""
        early, self._early, self._log = self._early, [], path
        self._write("".join(early))

    def keep(self, text: str) -> None:
        """A line for the file alone; a full disk costs the line and nothing else."""
        self._write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _write(self, lines: str) -> None:
        if self._log is None:
            self._early.append(lines)
            return
        with suppress(OSError), self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(lines)


def say(console: Console, text: str) -> None:
    """One line as it stands: no markup, no colors, not broken to the terminal's width."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    _keep(console, text)


def tell(console: Console, text: str) -> None:
    """One line of the result: on stdout, and in the log."""
    print(text)
    _keep(console, text)


def _keep(console: Console, text: str) -> None:
    if isinstance(console, LoggedConsole):
        console.keep(text)


@contextmanager
def exit_code(console: Console, *, again: str | Callable[[], str] = "") -> Iterator[None]:
    """What a command does: an error ends it with one sentence and its own exit code; so do Ctrl-C and SIGTERM.

    again  what goes on from there, or a function that knows it by then
    """

    def how() -> str:
        command = again if isinstance(again, str) else again()
        return f"; to go on: {command}" if command else ""

    try:
        with _terminable():
            yield
    except TesseraError as error:
        say(console, str(error) if error.exit_code == 130 else f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        say(console, f"stopped{how()}")
        raise typer.Exit(130) from None
    except (NotADirectoryError, PermissionError) as error:  # the same command would meet it again
        say(console, f"error: {_said(error)}")
        raise typer.Exit(2) from None
    except OSError as error:
        say(console, f"error: {_said(error)}{how()}")
        raise typer.Exit(1) from None
    except MemoryError:
        say(console, f"error: there is no memory left: lower the batch size, the size of the images or workers{how()}")
        raise typer.Exit(1) from None


def _said(error: OSError) -> str:
    where = error.filename or ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        at = f" ({where})" if where else ""
        return f"the disk is full{at}: make room; what is written so far, the last checkpoint too, stays as it is"
    reason = error.strerror or re.sub(r"^\[Errno \d+\] ", "", str(error)) or type(error).__name__
    return f"{where}: {reason}" if where else reason


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, which is a KeyboardInterrupt whatever it was before."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_bars: "WeakKeyDictionary[Console, list[Progress]]" = WeakKeyDictionary()  # under way, one within the other


class Progress:
    """Counts towards a total: `with Progress(console, "reading", 50) as bar: bar.advance()`.

    One may run within another. Without a total (None) it says how long it has been going on.
    """

    def __init__(self, console: Console, what: str, total: int | None, *, done: int = 0) -> None:
        self._console, self._what, self._total, self._done = console, what, total, done
        self._note, self._told, self._first = "", False, done
        self._rich: RichProgress | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        outer = _bars.setdefault(self._console, [])
        if self._console.is_terminal:
            self._rich = outer[0]._rich if outer else _rich(self._console)
            assert self._rich is not None
            self._task = self._rich.add_task(self._what, total=self._total, completed=self._done, note="")
            if not outer:
                self._rich.start()
        outer.append(self)
        if not self._console.is_terminal or isinstance(self._console, LoggedConsole):
            threading.Thread(target=self._tell, daemon=True).start()
        return self

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """n more are done; `note` stands behind the bar until the next one."""
        self._done += n
        self._note = self._note if note is None else note
        if self._rich is not None:
            self._rich.update(self._task, completed=self._done, note=self._note)

    def _tell(self) -> None:
        """A line every few seconds, whether anything is done or not; of bars within bars the innermost speaks."""
        wait = _SECONDS_UNTOLD
        while not self._ended.wait(wait):
            wait = _SECONDS_BETWEEN_LINES
            if _bars[self._console][-1:] == [self]:
                self._line()

    def _line(self) -> None:
        self._told, self._at = True, self._done
        text = self._text(time.monotonic() - self._began)
        if self._console.is_terminal:
            _keep(self._console, text)
        elif isinstance(self._console, LoggedConsole):  # its file has the clock already
            self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)
            self._console.keep(text)
        else:
            say(self._console, f"{time.strftime('%H:%M:%S')} {text}")

    def _text(self, seconds: float) -> str:
        if self._total is None:
            count = span(seconds)
        else:
            count = f"{self._done}/{self._total}"
            made = self._done - self._first
            if self._done >= self._total:
                count += f" in {span(seconds)}"
            elif made and self._total:
                count += f" ({self._done / self._total:.0%}), {span(seconds / made * (self._total - self._done))} left"
        return f"{self._what}: {count} {self._note}".rstrip()

    def __exit__(self, *error: Any) -> None:
        self._ended.set()
        _bars[self._console].remove(self)
        if self._rich is not None:
            if _bars[self._console]:
                self._rich.remove_task(self._task)
            else:
                self._rich.stop()
        heard = not self._console.is_terminal or isinstance(self._console, LoggedConsole)
        counted = not _bars[self._console] and self._total is not None
        ended = self._told and self._at == self._total  # the last line said so
        if error[0] is None and heard and (self._told or counted) and not ended:
            self._line()


def _rich(console: Console) -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


def span(seconds: float) -> str:
    """A time as people say it: 3 s, 3.3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
