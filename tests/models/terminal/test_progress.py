"""A bar on a terminal, plain lines with clock and time left in a file, and how commands end."""

import errno
import io
import re
import signal
import time
from pathlib import Path

import pytest
import typer
from rich.console import Console

from models.errors import UsageError
from models.terminal import progress
from models.terminal.progress import LoggedConsole, Progress, exit_code, say


def test_a_file_gets_plain_lines_with_clock_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_UNTOLD", 0.02)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.02)
    out = io.StringIO()
    with Progress(Console(file=out, width=40), "reading [x]", 4, done=1) as bar:
        bar.advance(note="slow, and with more to say than a terminal of forty columns has room for")
        time.sleep(0.1)
        bar.advance(2)
    first, *_, last = out.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d reading \[x\]: 2/4 \(50%\), \d+ s left slow, and .* room for", first)
    assert re.search(r"reading \[x\]: 4/4 in 0 s", last)


def test_a_line_comes_while_one_item_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_UNTOLD", 0.01)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.01)
    out = io.StringIO()
    with Progress(Console(file=out), "exporting", None):
        time.sleep(0.1)
    assert len(out.getvalue().splitlines()) > 2


def test_of_bars_within_bars_the_innermost_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_UNTOLD", 0.03)
    out = io.StringIO()
    console = Console(file=out)
    with Progress(console, "steps", 18) as steps:
        with Progress(console, "clustering", 2) as bar:
            time.sleep(0.05)
            bar.advance(2)
        steps.advance(18)
    assert [re.sub(r"^\S+ (\w+): (\S+).*", r"\1 \2", line) for line in out.getvalue().splitlines()] == [
        "clustering 0/2", "clustering 2/2", "steps 18/18",
    ]  # fmt: skip
    with Progress(console, "steps", 1), Progress(console, "quick", 1) as bar:
        bar.advance()
    assert "quick" not in out.getvalue()


def test_a_terminal_gets_bars() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with Progress(console, "reading [x]", 2) as bar:
        with Progress(console, "within", 3) as inner:
            inner.advance(3)
            time.sleep(0.15)  # ten pictures a second
        bar.advance(2, "[done]")
    shown = out.getvalue()
    assert "reading [x]" in shown
    assert "2/2" in shown
    assert "3/3" in shown
    assert "[done]" in shown
    assert "━" in shown


def test_the_log_has_what_the_console_had_from_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = LoggedConsole()
    say(console, "before there was a file")
    console.log_to(tmp_path / "train.log")
    say(console, "b" * 200)
    with Progress(console, "reading", 1) as bar:
        bar.advance()
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in lines] == [
        "before there was a file", "b" * 200, "reading: 1/1 in 0 s",
    ]  # fmt: skip
    shown = capsys.readouterr().err.splitlines()
    assert shown[:2] == ["before there was a file", "b" * 200]
    assert shown[2].endswith("reading: 1/1 in 0 s")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UsageError("no such thing"), 2, "error: no such thing"),
        (KeyboardInterrupt(), 130, "stopped; to go on: the same"),
        (OSError(errno.ENOSPC, "No space left on device", "run/x"), 1, "error: the disk is full (run/x): make room"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/1.jpg"), 1, "error: a/1.jpg: No such file"),
        (OSError("cannot read"), 1, "error: cannot read; to go on: the same"),
        (MemoryError(), 1, "error: there is no memory left"),
    ],
)
def test_a_command_ends_with_a_sentence_and_a_code(raised: BaseException, code: int, said: str) -> None:
    out = io.StringIO()
    with pytest.raises(typer.Exit) as left, exit_code(Console(file=out), again=lambda: "the same"):
        raise raised
    assert left.value.exit_code == code
    assert out.getvalue().startswith(said)


def test_sigterm_ends_a_command_as_ctrl_c_does() -> None:
    out = io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as left, exit_code(Console(file=out), again="the same"):
        signal.raise_signal(signal.SIGTERM)
    assert left.value.exit_code == 130
    assert out.getvalue() == "stopped; to go on: the same\n"
    assert signal.getsignal(signal.SIGTERM) is before
