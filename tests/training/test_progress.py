"""A bar on a terminal, plain lines in a file."""

import io

import pytest
from rich.console import Console

from training import progress
from training.progress import Progress


def test_a_file_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with Progress(Console(file=out), "reading [x]", 3, done=1) as bar:
        bar.advance(note="slow")
        bar.advance()
    assert out.getvalue().splitlines() == ["reading [x]: 1/3", "reading [x]: 3/3 slow"]
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    with Progress(Console(file=out), "again", 3) as bar:
        bar.advance(2)
    assert out.getvalue().splitlines()[-1] == "again: 2/3"


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True, width=100), "reading [x]", 2) as bar:
        bar.advance(2, "[done]")
    shown = out.getvalue()
    assert "reading [x]" in shown
    assert "2/2" in shown
    assert "[done]" in shown
    assert "━" in shown
