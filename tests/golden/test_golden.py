"""Every golden case passes, and the command that runs them tells right from wrong."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden import __main__ as command
from tests.golden.cases import FUNCTIONS
from tests.golden.runner import DATA, Case, GoldenError, entries, run

ROOT = Path(__file__).parents[2]
ENTRIES = {entry["case"]: entry for entry in entries(DATA)}


@pytest.mark.parametrize("name", ENTRIES)
def test_case(name: str) -> None:
    result = run(ENTRIES[name], DATA, FUNCTIONS)
    assert result.passed, result
    assert "not looked at" not in result.note


def test_every_function_has_its_case() -> None:
    assert FUNCTIONS.keys() == ENTRIES.keys()


def copied(folder: Path, *names: str) -> Path:
    """A golden folder of a few cases."""
    folder.mkdir()
    for name in names:
        shutil.copy(DATA / f"{name}.npz", folder)
    (folder / "manifest.json").write_text(json.dumps({"cases": [ENTRIES[name] for name in names]}))
    return folder


def change(folder: Path, name: str, **changes: object) -> None:
    """Other facts in a case's entry; None takes one away."""
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(entry for entry in manifest["cases"] if entry["case"] == name)
    entry.update(changes)
    for key in [key for key, value in entry.items() if value is None]:
        del entry[key]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def corrupt(folder: Path, name: str, key: str, value: float) -> None:
    """Another number in an array, and no digest that could tell."""
    arrays = dict(np.load(folder / f"{name}.npz"))
    arrays[key].flat[0] += value
    np.savez(folder / f"{name}.npz", **arrays)
    change(folder, name, sha256=None)


def lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[list[str], int]:
    """What the command prints of a folder, and its exit code."""
    monkeypatch.setattr(sys, "argv", ["python -m tests.golden", "--dir", str(folder)])
    code = command.main()
    return capsys.readouterr().out.splitlines(), code


def test_the_command_as_it_is_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m tests.golden --dir FOLDER`, without another process to import torch once more."""
    folder = copied(tmp_path / "few", "stego_norm", "cause_ema")
    monkeypatch.setattr(sys, "argv", ["tests.golden", "--dir", str(folder)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(command.__file__), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:2]] == ["stego_norm", "cause_ema"]
    assert all(line.split()[2] == "pass" for line in said[:2])
    assert said[2:] == ["2 passed, 0 failed"]
    assert left.value.code == 0


def test_wrong_numbers_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(tmp_path / "few", "stego_norm", "stego_knn", "stego_head")
    corrupt(folder, "stego_norm", "average_norm", 1e-3)
    corrupt(folder, "stego_knn", "nns", 1)
    said, code = lines(capsys, monkeypatch, folder)
    assert "FAIL  average_norm is off by 1.00e-03" in said[0]
    assert "FAIL  nns: 1 of 96 integers differ" in said[1]
    assert "pass" in said[2]
    assert said[3] == "1 passed, 2 failed"
    assert code == 1


def test_broken_files_and_unknown_cases_fail_with_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["stego_norm", "stego_knn", "stego_head", "stego_sample", "cause_ema"]
    folder = copied(tmp_path / "few", *names)
    (folder / "stego_norm.npz").write_bytes(b"another file")
    corrupt(folder, "stego_knn", "nns", 0)
    (folder / "stego_knn.npz").write_bytes((folder / "stego_knn.npz").read_bytes()[:200])
    (folder / "stego_head.npz").unlink()
    change(folder, "stego_sample", case="stego_something_new", file="stego_sample.npz")
    change(folder, "cause_ema", params={})
    said, code = lines(capsys, monkeypatch, folder)
    for line, why in zip(
        said,
        ["sha256 differs", "BadZipFile", "no such file", "there is no function", "KeyError: 'lamb'"],
        strict=False,
    ):
        assert "FAIL" in line
        assert why in line
    assert said[-1] == "0 passed, 5 failed"
    assert code == 1


def test_a_folder_without_a_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines(capsys, monkeypatch, tmp_path) == ([], 2)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(GoldenError, match="not a golden manifest"):
        entries(tmp_path)


def test_what_counts_as_the_same() -> None:
    theirs = torch.tensor([1.0, float("nan"), 100.0])

    def passes(ours: torch.Tensor) -> bool:
        case = Case("c", {}, {"a": theirs})
        case.same("a", ours)
        return case.result().passed

    assert passes(theirs + 1e-3)  # on a scale of 100
    assert not passes(theirs + 3e-3)
    assert not passes(theirs.nan_to_num(1.0))
    assert not passes(theirs[None])


def test_a_bug_that_is_ours_as_well_fails() -> None:
    case = Case("c", {}, {})
    case.differs(1.0, 2.0, "theirs counts half")
    assert case.result().passed
    case.differs(1.0, 1.0, "theirs counts half")
    assert not case.result().passed


def test_an_array_nobody_looks_at_is_named() -> None:
    assert "not looked at: a" in Case("c", {}, {"a": torch.zeros(1)}).result().note
