"""training/distillation/comparison.py and account.py: agreement, time in turns, and what is told of both."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from models.inference import Prediction
from models.types import Array
from tests.tiny import MeanColor, mean_color_onnx, write_tiny_bundle
from tests.training.small_run import small_run
from training.config.facts import noted
from training.distillation import account
from training.distillation.comparison import Comparison, Speed, compare, timed
from training.distillation.teacher import Teacher
from training.report import run_sections

TABLE = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
FOUND = Comparison(TABLE, 2, Speed(80.0, (64, 96)), Speed(12.5, (64, 96)), threads=2)


def test_agreement_is_counted_by_hand() -> None:
    assert FOUND.agreement == 9 / 12
    assert FOUND.by_cluster == [6 / 8, 3 / 4, None]
    assert FOUND.iou == [6 / 9, 3 / 6, None]
    assert json.loads(json.dumps(FOUND.facts()))["ms"] == {"teacher": 80.0, "student": 12.5}


class Slow:
    """A network that sleeps, and writes down when it was asked."""

    def __init__(self, name: str, seconds: float, asked: list[str]) -> None:
        self.name, self.seconds, self.asked = name, seconds, asked

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        self.asked.append(self.name)
        time.sleep(self.seconds)
        return Prediction(np.zeros((1, 1, 1, 1), np.float32))


def test_both_are_timed_in_turns_and_no_longer_than_patience_lasts() -> None:
    asked: list[str] = []
    networks = {"a": Slow("a", 0.01, asked), "b": Slow("b", 0.001, asked)}
    pixels = {name: np.zeros((8, 8, 3), np.uint8) for name in networks}
    found = timed(networks, pixels)
    assert asked == ["a", "b"] * 10  # once to warm up
    assert found["a"] >= 10
    assert 1 <= found["b"] < found["a"]
    asked.clear()
    timed(networks, pixels, patience_s=0.0)
    assert asked == ["a", "b"] * 4


def test_a_network_agrees_with_itself(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "teacher")
    run = small_run(tmp_path, "student.backbone=test_resnet", "clusters.k=5", "student.held_out=0.25")
    found = compare(Teacher(bundle, MeanColor()), mean_color_onnx(), bundle.manifest.input, run)
    assert found.images == 2
    assert found.agreement > 0.999  # numpy beside onnxruntime
    assert found.table.sum() == 2 * 64 * 64
    assert found.student.size == (64, 64)
    assert found.threads == torch.get_num_threads()


def test_all_of_it_is_told_noted_and_shown(tmp_path: Path) -> None:
    teacher, student = write_tiny_bundle(tmp_path / "teacher"), write_tiny_bundle(tmp_path / "student", name="small")
    run = small_run(tmp_path)
    table = np.diag([4, 3, 2, 1, 0])
    table[1, 0] = 3
    account.give(run, Comparison(table, 2, Speed(80.0, (64, 96)), Speed(12.5, (64, 80)), 1), teacher, student)
    said = run.console.file.getvalue()  # type: ignore[attr-defined]
    assert "agree on 76.9% of the pixels of 2 images that the student has not seen" in said
    assert "; least on green 50% (it has 46.2% of them), red 100%" in said
    assert "the teacher 80.0 ms, the student 12.5 ms (median, 96×64 and 80×64 pixels, 1 thread)" in said
    facts = noted(run, "student")
    size = sum(file.stat().st_size for file in student.path.rglob("*") if file.is_file()) / 1e6
    assert facts["mb"]["student"] == pytest.approx(size, abs=0.005)
    assert noted(run, "warnings") is None
    html = run_sections.student({**facts, "names": ["<b>", *facts["names"][1:]]})
    assert "0 &lt;b&gt;</td><td>100.0%</td><td>57.1%" in html
    assert "4 black</td><td>–</td><td>–" in html
    assert teacher.ref in html


def test_a_large_student_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, run = write_tiny_bundle(tmp_path / "teacher"), small_run(tmp_path)
    monkeypatch.setattr(account, "LARGE_MB", 0.0001)
    account.give(run, Comparison(np.eye(5, dtype=int), 2, FOUND.teacher, FOUND.student, 1), bundle, bundle)
    (warning,) = noted(run, "warnings")
    assert "the student's bundle has 0.0 MB" in warning["text"]
    assert warning["option"] == "student.backbone=resnet10t"  # its network alone is more than that
