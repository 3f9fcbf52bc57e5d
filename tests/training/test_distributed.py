"""Two processes train what one trains with the same batches; the first that fails speaks for all.

Held to 1e-4 of a tensor's largest value: sums of many float32 are added up in another order.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from tests.training import several, together
from tests.training.small_run import SMALL, draw

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        off = (found[name].double() - value.double()).abs().max() if value.numel() else torch.zeros(())
        assert off <= tolerance * max(1.0, float(value.double().abs().max()) if value.numel() else 0.0), (name, off)


@pytest.mark.slow
def test_shares_gradients_and_batch_norms_of_two_are_those_of_one(tmp_path: Path) -> None:
    found = several.together("tests.training.several", folder=tmp_path)
    wanted = several.pieces() | several.batch_normed(synchronized=False)
    assert_close(found, wanted, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("what", [*together.RUNS, "pretraining"])
def test_two_processes_train_what_one_trains(what: str, tmp_path: Path) -> None:
    draw(tmp_path / "images", count=9)
    found = several.together("tests.training.together", what, folder=tmp_path)
    draw(tmp_path / "alone" / "images", count=9)
    tolerance = 1e-3 if what in ("pretraining", "deepcluster") else 1e-4  # of a deep CNN's gradients
    assert_close(found, together.trained(what, tmp_path / "alone"), tolerance)


def torchrun(*arguments: str) -> list[str]:
    """The command that people type, with two processes."""
    return [*LAUNCHER, "training/train.py", "--device", "cpu", *arguments]


def ended(command: list[str]) -> tuple[int, str]:
    """Exit code, and what was said on both outputs, of a command."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    return done.returncode, done.stdout


_FAILS = """
import os, signal, typer
from rich.console import Console
from models.errors import TesseraError
from training import distributed
from models.terminal.progress import exit_code

def main(how: str):
    console = Console(stderr=True)
    with exit_code(console), distributed.joined(console):
        distributed.barrier()
        if how == "main":  # while the other waits for it
            with distributed.main_first():
                raise TesseraError("the disk is full")
        if how == "other" and distributed.rank() == 1:
            raise TesseraError("the disk is full")
        if how == "killed" and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.barrier()

typer.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("main", "the disk is full"),
        ("other", "the disk is full"),
        ("killed", "one of 2 processes ended without a word"),
    ],
)
def test_whoever_fails_first_speaks_once_for_all(how: str, sentence: str, tmp_path: Path) -> None:
    program = tmp_path / "fails.py"
    program.write_text(_FAILS)
    code, said = ended([*LAUNCHER, str(program), how])
    assert code != 0
    assert said.count(f"error: {sentence}") == 1, said
    assert said.count('fails.py", line') == 0, said  # no traceback of ours


@pytest.mark.slow
def test_torchrun_trains_stops_and_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    draw(tmp_path / "photos", count=9)
    out = tmp_path / "run"
    small = [f"--set={value}" for value in [*SMALL, "backbone.name=test_resnet", "picie.epochs=200"]]
    begin = torchrun("--data", str(tmp_path / "photos"), "--out", str(out), "--method", "picie", *small)
    with subprocess.Popen(begin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as running:
        deadline = time.monotonic() + 120
        log = out / "metrics.jsonl"
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:  # until steps are made
            time.sleep(0.2)
        running.send_signal(signal.SIGTERM)
        said = running.communicate(timeout=120)[0]
    assert said.count("the checkpoint is written") == 1, said
    begun = json.loads((out / "run.json").read_text())
    begun["recipe"]["picie"]["epochs"] = 2  # as if it were nearly done
    (out / "run.json").write_text(json.dumps(begun))
    shutil.copytree(out, tmp_path / "other")
    one = [sys.executable, "training/train.py", "--device", "cpu", "--out", str(out), "--resume"]
    for command, folder in ((one, out), (torchrun("--out", str(tmp_path / "other"), "--resume"), tmp_path / "other")):
        code, said = ended(command)
        assert code == 0, said
        assert said.count("tessera serve --bundle") == 1
        assert len(Bundle.load(folder / "bundle").manifest.clusters) == 3
        assert (folder / "report.html").exists()


@pytest.mark.slow
def test_of_two_processes_one_says_what_is_wrong(tmp_path: Path) -> None:
    draw(tmp_path / "photos")
    common = ["--data", str(tmp_path / "photos"), "--out", str(tmp_path / "run")]
    for wrong, sentence in (
        (["--set", "seeed=1"], "did you mean seed?"),
        (["--set", "backbone.weights=random", "--set", "input.train_size=76"], "set input.train_size to 70"),
    ):
        code, said = ended(torchrun(*common, *wrong))
        assert code != 0
        assert said.count(sentence) == 1, said
        assert 'train.py", line' not in said  # no traceback of ours
