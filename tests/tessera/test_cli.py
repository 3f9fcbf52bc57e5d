"""`tessera`: help without torch, the version, wrong usage, what a command raises."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from models.errors import TesseraError
from models.extras import brings
from tessera import cli

ROOT = Path(__file__).parents[2]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["tessera", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    cli.main()


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_help_has_a_line_and_an_example_for_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    run(monkeypatch, *arguments)
    text = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"{name} " in text
        assert command.line in text
        assert f"$ {command.example}" in text
        assert command.example.startswith(f"tessera {name} ")


def test_every_command_stands_in_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert [name for name in cli.COMMANDS if f"tessera {name}" not in pages] == []


def test_help_needs_neither_torch_nor_fastapi() -> None:
    poison = "import sys; sys.modules.update(dict.fromkeys(['torch', 'fastapi', 'numpy']))"
    code = f"{poison}; from tessera.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tessera train --data" in done.stdout


def test_every_command_is_where_it_is_said_to_be() -> None:
    for command in cli.COMMANDS.values():
        module, function = command.owner.split(":")
        assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize(
    ("absent", "name", "says"),
    [
        ("huggingface_hub", "pull", "--revision"),
        ("huggingface_hub", "push", "--private"),
        ("mcp", "mcp", "--allow DIR"),
        ("torch", "train", "$ tessera train --data photos"),
        ("torch", "recluster", "tessera-segmentation[training]"),
    ],
)
def test_help_needs_no_extra(absent: str, name: str, says: str) -> None:
    code = f"import sys; sys.modules[{absent!r}] = None; from tessera.cli import main; main()"
    command = [sys.executable, "-c", code, name, "--help"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert says in done.stdout


@pytest.mark.parametrize(
    ("arguments", "absent", "extra"),
    [(("pull", "somebody/street"), "huggingface_hub", "hub"), (("mcp", "--allow", "."), "mcp", "mcp")],
)
def test_what_a_command_lacks_is_said_when_it_runs(arguments: tuple[str, ...], absent: str, extra: str) -> None:
    code = f"import sys; sys.modules[{absent!r}] = None; from tessera.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"is not installed here: {brings(extra)}" in done.stderr


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"tessera {version('tessera-segmentation')}\n"


def test_wrong_usage_is_2_with_a_hint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "sreve")
    assert ended.value.code == 2
    assert "did you mean serve?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (TesseraError("there is no bundle"), "tessera toy: there is no bundle"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "the package 'torch' is not installed here"),
    ],
)
def test_a_failure_is_1_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: Exception, said: str
) -> None:
    def fail(*_: Any) -> Any:
        raise raised

    toy = cli.Command("toy:main", "a toy", "tessera toy now")
    monkeypatch.setitem(cli.COMMANDS, "toy", toy)
    if isinstance(raised, TesseraError):
        monkeypatch.setattr(cli, "import_module", lambda name: type("Toy", (), {"main": staticmethod(fail)}))
    else:
        monkeypatch.setattr(cli, "import_module", fail)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "toy")
    assert ended.value.code == 1
    assert said in capsys.readouterr().err
