"""What was found out once: what was kept comes back, the oldest make room, and nothing half-written stays."""

import logging
import os
from pathlib import Path

import pytest

from service import remembered
from service.remembered import Remembered


def test_what_was_kept_comes_back_and_nothing_else_stays(tmp_path: Path) -> None:
    kept = Remembered(tmp_path / "new" / "engines.json", "not kept")
    assert kept.get("a") == {}
    kept.put("a", {"engine": "openvino", "note": "why"})
    kept.put("b", {"engine": "onnxruntime"})
    kept.put("a", {"engine": "onnxruntime", "note": "why not"})
    again = Remembered(tmp_path / "new" / "engines.json", "not kept")
    assert again.get("a") == {"engine": "onnxruntime", "note": "why not"}
    assert again.get("b") == {"engine": "onnxruntime"}
    assert os.listdir(tmp_path / "new") == ["engines.json"]


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_KEPT", 3)
    kept = Remembered(tmp_path / "engines.json", "not kept")
    for key in "abca":  # `a` becomes the newest again
        kept.put(key, {"engine": key})
    kept.put("d", {"engine": "d"})
    assert [bool(kept.get(key)) for key in "abcd"] == [True, False, True, True]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Remembered(tmp_path / "engines.json", "it is measured again")
    kept.put("a", {"engine": "openvino"})

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.INFO):
        kept.put("a", {"engine": "onnxruntime"})
    assert kept.get("a") == {"engine": "openvino"}
    assert os.listdir(tmp_path) == ["engines.json"]
    assert "it is measured again: no space left" in caplog.text


@pytest.mark.parametrize("damaged", ["", "[]", "{", '{"a": 1}', '{"a": {"engine": 3}}', "[" * 100_000, "\x00"])
def test_a_damaged_file_remembers_nothing_and_is_written_anew(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "engines.json").write_text(damaged)
    kept = Remembered(tmp_path / "engines.json", "not kept")
    assert kept.get("a") == {}
    kept.put("a", {"engine": "openvino"})
    assert kept.get("a") == {"engine": "openvino"}
