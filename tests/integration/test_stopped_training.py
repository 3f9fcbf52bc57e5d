"""A training stopped at any moment, by any signal: a sentence, and a command that a shell takes, until it is done."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.bundle import Bundle
from tests.training.small_run import SMALL, draw
from training.trainer import checkpoint

ROOT = Path(__file__).parents[2]
TINY = " ".join(
    f"--set {one}"
    for one in (*SMALL, "backbone.name=test_resnet", "picie.epochs=8", "picie.batch_size=4", "picie.code_dim=8")
)


def begin(command: str, folder: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command}"], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_goes_on_to_the_end_and_to_the_same_weights(tmp_path: Path, number: signal.Signals) -> None:
    draw(tmp_path / "my photos", 24)
    program = f"{sys.executable} {ROOT / 'training' / 'train.py'}"
    first = f"{program} --data 'my photos' --out 'a run' --method picie --device cpu {TINY}"
    whole = begin(first.replace("'a run'", "whole"), tmp_path)
    began = time.monotonic()
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    lasted = time.monotonic() - began
    command, stops = first, 0
    for share in (0.45, 0.55, 0.65, 0.75, 2.0):
        run = begin(command, tmp_path)
        try:
            run.wait(share * lasted)
        except subprocess.TimeoutExpired:
            run.send_signal(number)
            stops += 1
        _, said = run.communicate(timeout=300)
        assert "Traceback" not in said
        if run.returncode == 0:
            break
        if number == signal.SIGKILL:
            command = f"{program} --out 'a run' --resume" if (tmp_path / "a run" / "run.json").exists() else first
        elif run.returncode == 130:
            command = re.findall(r"[Tt]o go on: (.*)", said)[-1]
    assert run.returncode == 0
    assert stops
    Bundle.load(tmp_path / "a run" / "bundle")
    found, wanted = (
        checkpoint.load(tmp_path / name / "checkpoints" / "last.safetensors")[0] for name in ("a run", "whole")
    )
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert not list((tmp_path / "a run").glob("*.lock"))
