"""`tessera completion`: the shells that are here complete commands, options and files with it."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tessera.cli import COMMANDS
from tessera.commands.completion import SHELLS, script

ROOT = Path(__file__).parents[3]
LINES = {name: command.line for name, command in COMMANDS.items()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a `tessera` to ask, and the scripts."""
    program = tmp_path / "bin" / "tessera"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'from tessera.cli import main; main()' \"$@\"\n"
    )
    program.chmod(0o755)
    for shell in SHELLS:
        (tmp_path / shell).write_text(script(shell, LINES))
    (tmp_path / "photo.jpg").touch()
    return tmp_path


def run(home: Path, shell: str, code: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", code], cwd=home, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.split("\n")[:-1]


def bash(home: Path, *words: str) -> list[str]:
    typed = " ".join(f"'{word}'" for word in words)
    return run(
        home,
        "bash",
        f'. ./bash; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _tessera; printf "%s\\n" "${{COMPREPLY[@]}}"',
    )


def test_bash(home: Path) -> None:
    assert bash(home, "tessera", "do") == ["doctor"]
    assert set(COMMANDS) < set(bash(home, "tessera", ""))
    assert bash(home, "tessera", "doctor", "--po") == ["--port"]
    assert bash(home, "tessera", "segment", "pho") == ["photo.jpg"]
    assert bash(home, "tessera", "completion", "z") == ["zsh"]


def test_fish(home: Path) -> None:
    def fish(line: str) -> list[str]:
        return [found.split("\t")[0] for found in run(home, "fish", f"source fish; complete -C {shlex.quote(line)}")]

    assert fish("tessera do") == ["doctor"]
    assert set(COMMANDS) <= set(fish("tessera "))
    assert "--port" in fish("tessera doctor --po")
    assert "photo.jpg" in fish("tessera segment pho")
    assert fish("tessera completion z") == ["zsh"]


def test_zsh(home: Path) -> None:
    """What the function would add, told by stand-ins of zsh's own builtins, which work only while a line is edited."""
    stand_ins = (
        'compadd() { shift; print -l -- "$@" }; _describe() { print -l -- ${commands%%:*} }; _files() { print files };'
    )

    def zsh(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in words)
        return run(home, "zsh", f"{stand_ins} source ./zsh; words=({typed}); CURRENT={len(words)}; _tessera")

    assert set(COMMANDS) < set(zsh("tessera", ""))
    assert "--port" in zsh("tessera", "doctor", "--po")
    assert zsh("tessera", "completion", "") == ["bash", "zsh", "fish"]
    assert zsh("tessera", "segment", "pho") == ["files"]
