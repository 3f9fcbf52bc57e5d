"""Commands for people to type: in their words, quoted."""

import sys
from pathlib import Path

import pytest

from models.terminal import command_line


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a python and our program, which is on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "tessera"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "orig_argv", list(words))


def test_a_program_on_the_path_goes_by_its_name(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, str(bin / "python"), str(bin / "tessera"), "train", "--out", "x")
    assert command_line.command("train", "--out", Path("my run"), "--resume") == "tessera train --out 'my run' --resume"


def test_one_that_is_not_stands_as_it_was_typed(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    typed(monkeypatch, str(bin / "python"), "bin/tessera", "train")
    assert command_line.command("serve", "--bundle", "b") == "bin/tessera serve --bundle b"


def test_a_script_stays_a_script_and_serves_from_beside_its_python(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "bin/python", "-u", "code/training/train.py", "--data", "x")
    assert command_line.command("train", "--resume") == "bin/python -u code/training/train.py --resume"
    assert command_line.command("evaluate", "b") == "bin/python -u code/training/evaluate.py b"
    assert command_line.command("serve") == "bin/tessera serve"
    typed(monkeypatch, "python", "training/train.py")
    assert command_line.command("serve") == "tessera serve"


def test_of_several_processes_training_goes_on_with_as_many(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other command is one process's."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    typed(monkeypatch, "bin/python", "-u", "training/train.py", "--data", "x")
    assert command_line.command("train", "--resume") == "torchrun --nproc-per-node 4 training/train.py --resume"
    (bin / "torchrun").touch(mode=0o755)
    assert command_line.command("train", "--resume") == "bin/torchrun --nproc-per-node 4 training/train.py --resume"
    assert command_line.command("recluster", "r") == "bin/python -u training/recluster.py r"
    assert command_line.command("serve") == "bin/tessera serve"


def test_the_same_again_without_an_option(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tessera train", "--data", "my photos", "--dry-run", "--out", "o"])
    typed(monkeypatch, str(bin / "python"), str(bin / "tessera"), *sys.argv[1:])
    assert command_line.again("train") == "tessera train --data 'my photos' --dry-run --out o"
    assert command_line.again("train", without="--dry-run") == "tessera train --data 'my photos' --out o"


def test_whoever_calls_from_python_is_told_the_program(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "python", "-m", "pytest", "tests/training/test_train.py")
    assert command_line.command("train", "--resume") == "tessera train --resume"
